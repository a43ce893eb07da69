package delivery_test

import (
	"errors"
	"testing"
	"time"

	"parley.internal/emulator/emulatortest"
	"parley.internal/shared/bus"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
)

func TestOnlyDirectMessagesOnTwitchAreWhispers(t *testing.T) {
	tests := []struct{ destination, kind, want string }{
		{"twitch", event.EgressDM, bus.RouteWhisper},
		{"twitch", event.EgressChat, bus.RouteBroadcast},
		{"twitch", event.EgressEvent, bus.RouteBroadcast},
		{"twitch", "", bus.RouteBroadcast},
		{"discord", event.EgressDM, bus.RouteBroadcast},
		{"api-gateway", event.EgressDM, bus.RouteBroadcast},
		{"", event.EgressDM, bus.RouteBroadcast}, // where the event came from: the gateway's own clients
	}
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		p := &publisher{}
		s := delivery.NewSender(delivery.NewLedger(connect(t, env), "one", time.Now), p, delivery.Config{Deadline: time.Minute, Retention: time.Hour}, time.Now)
		for _, tt := range tests {
			e := newAnswer("hi")
			e.CorrelationID = tt.destination + "/" + tt.kind
			e.Egress = &event.Egress{Destination: tt.destination, Type: tt.kind}
			id, err := s.Send(t.Context(), e, "tester")
			if err != nil {
				t.Fatal(err)
			}
			if err := s.PublishEntry(t.Context(), id); err != nil { // as after a redrive
				t.Fatal(err)
			}
			for _, out := range p.sent {
				if got := out.Attributes[bus.AttrRoute]; got != tt.want {
					t.Errorf("%s of type %q: route %q; want %q", tt.destination, tt.kind, got, tt.want)
				}
			}
			p.sent = nil
		}
	})
}

func TestAnswerSentInTimeIsNotExpiredBySendingAgainLater(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		p, now := &publisher{fail: 1}, event.TruncateToMicros(time.Now())
		s := delivery.NewSender(delivery.NewLedger(connect(t, env), "one", time.Now), p, delivery.Config{Deadline: time.Minute, Retention: time.Hour}, func() time.Time { return now })
		e := newAnswer("hi")
		e.TimeoutAt = now.Add(time.Second)
		if _, err := s.Send(t.Context(), e, "tester"); err == nil {
			t.Fatal("the failure to publish was swallowed")
		}
		now = now.Add(2 * time.Second)
		id, err := s.Send(t.Context(), e, "tester")
		if err != nil || id != delivery.ID("c1", "tester") || len(p.sent) != 1 {
			t.Errorf("Send again = %q, %v, and published %d; want what was opened in time", id, err, len(p.sent))
		}
		_, err = s.Send(t.Context(), e, "another")
		if d, ok := errors.AsType[*deadletter.Error](err); !ok || d.Reason != deadletter.Expired {
			t.Errorf("Send of what was never opened = %v; want it to be expired", err)
		}
	})
}

func TestRetentionMustBeLongerThanTheDeadline(t *testing.T) {
	for c, fine := range map[delivery.Config]bool{
		{Deadline: 2 * time.Minute, Retention: 72 * time.Hour}:       true,
		{Deadline: time.Hour, Retention: 2 * time.Hour}:              true,
		{Deadline: time.Hour, Retention: time.Hour}:                  false, // Firestore could remove it before the sweep
		{Deadline: 2 * time.Minute, Retention: 30 * time.Minute}:     false,
		{Deadline: 500 * time.Millisecond, Retention: 2 * time.Hour}: false,
		{Deadline: time.Minute, Retention: -time.Hour}:               false,
	} {
		if err := c.Validate(); (err == nil) != fine {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
