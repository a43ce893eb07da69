package delivery_test

import (
	"fmt"
	"time"

	"parley.internal/shared/delivery"
)

func ExampleID() {
	// always the same for the same event and step
	fmt.Println(delivery.ID("c1", "personality"))
	// Output: ad3c3381110746becbe3a34d1d688253
}

func ExampleRef_Wait() {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	r := delivery.Ref{ID: "d1", Deadline: now.Add(20 * time.Second)}
	fmt.Println(r.Wait(time.Minute, now), r.Wait(time.Second, now))
	// Output: 20s 1s
}
