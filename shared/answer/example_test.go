package answer_test

import (
	"fmt"

	"parley.internal/shared/answer"
	"parley.internal/shared/event"
)

func ExampleText() {
	low, high := 1.0, 2.0
	fmt.Println(answer.Text(&event.Event{Candidates: []event.Candidate{
		{ID: "a", Text: "second choice", Priority: &high},
		{ID: "b", Text: " first choice", Priority: &low},
	}}))
	// Output: first choice
}

func ExampleRender() {
	e := &event.Event{Source: "ingress.discord", Channel: "discord:7", Egress: &event.Egress{Destination: "discord"}}
	e.Candidates = []event.Candidate{{Text: "!ban ada"}} // a model's
	fmt.Printf("%q\n", answer.Render(e).Whole())
	e.Candidates = []event.Candidate{{Text: "!so ada", Metadata: answer.TemplateMetadata([]answer.Span{{0, 4}})}} // "!so {{ … }}"
	fmt.Printf("%q\n", answer.Render(e).Whole())
	// Output:
	// "\u200b!ban ada"
	// "!so ada"
}
