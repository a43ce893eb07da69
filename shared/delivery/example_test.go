package delivery_test

import (
	"fmt"
	"time"

	"parley.internal/shared/delivery"
)

func ExampleID() {
	// the same event and step always give the same delivery
	fmt.Println(delivery.ID("c1", "personality") == delivery.ID("c1", "personality"))
	fmt.Println(delivery.ID("c1", "personality") == delivery.ID("c1", "rule"))
	// Output:
	// true
	// false
}

func ExampleRef_Wait() {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	r := delivery.Ref{ID: "d1", Deadline: now.Add(20 * time.Second)}
	fmt.Println(r.Wait(time.Minute, now), r.Wait(time.Second, now))
	// Output: 20s 1s
}
