package event_test

import (
	"errors"
	"fmt"
	"time"

	"parley.internal/shared/event"
)

func ExampleDecode() {
	e, err := event.Decode([]byte(`{"v":"2","source":"api-gateway","correlationId":"c1","type":"chat.message",
		"userId":"twitch:1","message":{"role":"user","text":"hello"}}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(e.UserID, "says", e.Message.Text)

	_, err = event.Decode([]byte(`{"v":"2","source":"api-gateway","type":"chat.message"}`))
	fmt.Println(errors.Is(err, event.ErrInvalid), err)
	// Output:
	// twitch:1 says hello
	// true correlationId: missing
}

func ExampleEvent_Finish() {
	e := &event.Event{RoutingSlip: []event.Step{{ID: "personality", Status: event.StepPending}}}
	fmt.Println("next:", e.Next())
	e.Finish("personality", time.Now(), time.Now(), nil)
	fmt.Printf("next: %q, %s\n", e.Next(), e.RoutingSlip[0].Status)
	// Output:
	// next: personality
	// next: "", OK
}

func ExampleText() {
	payload := event.Raw(map[string]any{"user": map[string]any{"id": 7, "name": "Ada"}})
	name, _ := event.Text(payload, "user", "name")
	id, _ := event.Text(payload, "user", "id")
	_, found := event.Text(payload, "user", "color")
	fmt.Println(name, id, found)
	// Output: Ada 7 false
}
