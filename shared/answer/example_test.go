package answer_test

import (
	"fmt"

	"parley.internal/shared/answer"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
)

func ExampleText() {
	low, high := 1.0, 2.0
	fmt.Println(answer.Text(&event.Event{Candidates: []event.Candidate{
		{ID: "a", Text: "second choice", Priority: &high},
		{ID: "b", Text: " first choice", Priority: &low},
	}}))
	// Output: first choice
}

func ExampleSanitizeMentions() {
	fmt.Printf("%q\n", answer.SanitizeMentions("hi @everyone", identity.Discord))
	fmt.Printf("%q\n", answer.SanitizeMentions("/ban ada", identity.Twitch))
	// Output:
	// "hi @\u200beveryone"
	// "\u200b/ban ada"
}
