package enrichment_test

import (
	"context"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"parley.internal/functions/enrichment"
	"parley.internal/shared/bus"
	"parley.internal/shared/config"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/store"
	"parley.internal/shared/topology"
)

// memory is a store of one user and some rules, without Firestore.
type memory struct {
	user  store.User
	rules []store.Rule
}

func (m *memory) User(context.Context, identity.UserID) (store.User, store.Version, error) {
	return m.user, store.Version{}, nil
}

func (m *memory) LinkedUser(_ context.Context, id, _ identity.UserID) (identity.UserID, store.User, store.Version, error, error) {
	return id, m.user, store.Version{}, nil, nil
}

func (m *memory) UserByEmail(context.Context, string) (identity.UserID, store.User, store.Version, error) {
	return identity.UserID{}, store.User{}, store.Version{}, nil
}

func (m *memory) PutUser(_ context.Context, _ identity.UserID, u store.User, _ store.Version) error {
	m.user = u
	return nil
}

func (m *memory) Rules(context.Context) ([]store.Rule, map[string]error, error) {
	return m.rules, nil, nil
}

// discard drops everything published or sent.
type discard struct{}

func (discard) Publish(context.Context, topology.Topic, bus.Outgoing) error { return nil }

func (discard) SendToAll(context.Context, *event.Event, string) ([]string, error) { return nil, nil }

// BenchmarkEnrich measures one chat message of Twitch under ten rules: the function without the network, and without
// the user document's encoding.
func BenchmarkEnrich(b *testing.B) {
	cfg, err := config.Load[enrichment.Config]([]string{"GOOGLE_CLOUD_PROJECT=p"})
	if err != nil {
		b.Fatal(err)
	}
	m := &memory{}
	for i := range 10 {
		m.rules = append(m.rules, store.Rule{
			ID: "r" + strconv.Itoa(i), Enabled: true, When: `event.message.text.startsWith("!` + strconv.Itoa(i) + `")`,
			Candidates: []store.RuleCandidate{{Text: "{{ event.user.displayName }}"}},
		})
	}
	f := enrichment.New(enrichment.Deps{
		Config: cfg, Store: m, Bus: discard{}, Sender: discard{}, Now: time.Now, Log: slog.New(slog.DiscardHandler),
	})
	const payload = `{"type":"chat","userId":"5","displayName":"Ada","username":"ada","user":{"id":"5","login":"ada","displayName":"Ada"},` +
		`"color":"#ff0000","badges":[{"set_id":"moderator","id":"1"},{"set_id":"subscriber","id":"12"}],"isMod":true,"isSubscriber":true,"room":"1"}`
	e := onTwitch("c", "5", "how are you all today?", "")
	e.Message.RawPlatformPayload = []byte(payload)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		e.CorrelationID = strconv.Itoa(i)
		if err := f.Enrich(b.Context(), bus.Incoming{Event: e, ID: "1", Published: start}); err != nil {
			b.Fatal(err)
		}
	}
}
