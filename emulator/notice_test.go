package main

import (
	"bytes"
	"testing"

	"cloud.google.com/go/pubsub/v2"

	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/topology"
)

// A system with a plain Pub/Sub client publishes notices on the egress topic. It knows nothing of the ledger and sets no
// attributes.
func TestNoticeOfAnotherSystemIsDeliveredOnce(t *testing.T) {
	t.Parallel()
	w := newCommunity(t, "helix", nil)
	publisher := pubsubClient(t, w.parley).Publisher(topology.Prefix{}.Topic(w.parley.Project, topology.Egress).String())
	defer publisher.Stop()
	publish := func(data string, attributes map[string]string) {
		t.Helper()
		if _, err := publisher.Publish(t.Context(), &pubsub.Message{Data: []byte(data), Attributes: attributes}).Get(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	begin := `{"v":"2","source":"system.scheduler","type":"system.announcement",`
	publish(begin+`"correlationId":"n1","channel":"games","egress":{"destination":"api-gateway"},"payload":{"text":"to the room"}}`, nil)
	publish(begin+`"correlationId":"n2","channel":"twitch:bruno","egress":{"destination":"twitch"},"payload":{"text":"to Twitch"}}`, nil)
	publish(begin+`"correlationId":"n3","channel":"discord:3002","egress":{"destination":"discord"},"payload":{"text":"to Discord"}}`, nil)
	for range 2 { // published twice, by a script that copies a route
		publish(begin+`"correlationId":"n4","payload":{"text":"to all"},"egress":{"to":[
			{"destination":"twitch","channel":"twitch:bruno"},{"destination":"discord","channel":"discord:3002"},{"destination":"api-gateway","channel":"games"}]}}`,
			map[string]string{"route": "broadcast", "idempotencyKey": "start-of-the-stream"})
	}
	malformed := []byte(`{"v":"2","source":"system.scheduler","text":"hello"}`)
	publish(string(malformed), map[string]string{"route": "broadcast"})

	w.receives(map[string][]string{
		onWeb: {"to the room", "to all"}, onTwitch: {"to Twitch", "to all"}, onDiscord: {"to Discord", "to all"},
	})
	until(t, "the dead letter", func() bool { return len(storedDeadLetters(t, w.db)) > 0 })
	until(t, "every outcome", func() bool { return len(w.inState(delivery.Pending, delivery.Claimed)) == 0 })
	if all := w.inState(delivery.Delivered); len(all) != 6 || len(w.ledger()) != 6 {
		t.Errorf("%d delivered entries of %d; want 6", len(all), len(w.ledger()))
	}
	w.adaSays("last") // a second copy of a notice would come before
	w.receives(map[string][]string{
		onWeb: {"to the room", "to all"}, onTwitch: {"to Twitch", "to all", "[web] Ada: last"}, onDiscord: {"to Discord", "to all", "[web] Ada: last"},
	})
	all := storedDeadLetters(t, w.db)
	if len(all) != 1 || all[0].Reason != deadletter.InvalidEvent || !bytes.Equal(all[0].Data, malformed) || all[0].Attempts != 1 {
		t.Errorf("dead letters %+v; want one for the malformed notice", all)
	}
}
