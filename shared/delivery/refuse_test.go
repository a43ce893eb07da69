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
	"parley.internal/shared/topology"
)

func TestRefusalWithoutAnnouncementIsAnnouncedByTheSweep(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		p := newParts(t, env)
		data := []byte(`{ "v": "2", "source": "api-gateway", "correlationId": "c1", "type": "chat.message", "userId": "twitch:1", "new": true }`)
		e, err := event.Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		in := bus.Incoming{Event: e, Data: data, Topic: topology.Enriched, Attributes: map[string]string{"next": "personality"}}
		p.bus.fail = 1
		if refused, err := p.reaper().Refuse(t.Context(), in, "personality", deadletter.New(deadletter.ModelRefused, errors.New("blocked"))); err == nil || !refused {
			t.Fatalf("Refuse = %v, %v; want the error of the announcement", refused, err)
		}
		all := p.letters(t)
		if len(all) != 1 || string(all[0].Data) != string(data) || all[0].Reason != deadletter.ModelRefused || all[0].Topic != string(topology.Enriched) {
			t.Fatalf("dead letters = %+v", all)
		}
		entry, err := p.ledger.Get(t.Context(), delivery.ID("c1", "personality"))
		if err != nil || entry.State != delivery.Dead || entry.OpenedAt.IsZero() || entry.ID != all[0].ID {
			t.Errorf("entry = %+v, %v", entry, err)
		}
		p.now = p.now.Add(time.Minute)
		for _, want := range []int{1, 0} {
			if done, err := p.reaper().Sweep(t.Context()); err != nil || done.Announced != want || done.MarkedDead != 0 {
				t.Errorf("Sweep = %+v, %v; want %d announced", done, err, want)
			}
		}
	})
}
