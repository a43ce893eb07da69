package enrichment_test

import (
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"parley.internal/shared/answer"
	"parley.internal/shared/event"
	"parley.internal/shared/topology"
)

// happened returns an external event in the form of the Twitch ingress.
func happened(id, kind, user, payload string) *event.Event {
	return &event.Event{
		V: event.Version, Source: "ingress.twitch.eventsub", CorrelationID: id, Type: "twitch." + kind,
		Channel: "twitch:streamer", UserID: "twitch:" + user, Auth: &event.Auth{Provider: "twitch"},
		Egress: &event.Egress{Destination: "twitch", Type: event.EgressChat},
		ExternalEvent: &event.ExternalEvent{
			ID: "m-" + id, Source: "twitch.eventsub", Kind: kind, Version: "1",
			Payload: jsontext.Value(`{"userId":"` + user + `",` + payload + `"roomId":"5"}`),
		},
	}
}

func TestRulesAnswerExternalEvents(t *testing.T) {
	onFirestore(t, func(r *rig) {
		welcome := func(when, text string) map[string]any {
			return map[string]any{"when": when, "candidates": textCandidate(text), "egress": map[string]any{"audience": "channel"}}
		}
		r.rule("raid", welcome(`event.type == "twitch.raid" && event.externalEvent.payload.viewers >= 5`,
			"Welcome, {{ event.user.displayName }} and {{ event.externalEvent.payload.viewers }} raiders!"))
		r.rule("follow", welcome(`event.type == "twitch.follow"`, "Thank you for following, {{ event.user.displayName }}!"))
		r.rule("sub", welcome(`event.type == "twitch.sub" && event.externalEvent.payload.tier != "1000"`,
			"{{ event.user.displayName }} subscribes at tier {{ event.externalEvent.payload.tier }}!"))
		r.rule("online", welcome(`event.type == "twitch.stream_online"`, "{{ event.user.displayName }} is live."))
		for _, test := range []struct {
			name     string
			in       *event.Event
			want     string // empty for no answer
			repeated bool
		}{
			{"a raid", happened("c1", "raid", "7", `"displayName":"Ada","viewers":42,`), "Welcome, Ada and 42 raiders!", false},
			{"the same told again", happened("c1", "raid", "7", `"displayName":"Ada","viewers":42,`), "Welcome, Ada and 42 raiders!", true},
			{"a small raid", happened("c2", "raid", "7", `"displayName":"Ada","viewers":4,`), "", false},
			{"a follower", happened("c3", "follow", "8", `"displayName":"Bruno",`), "Thank you for following, Bruno!", false},
			{"a user with another name before", happened("c4", "follow", "7", `"displayName":"ADA",`), "Thank you for following, ADA!", false},
			{"a subscription", happened("c5", "sub", "8", `"displayName":"Bruno","tier":"3000",`), "Bruno subscribes at tier 3000!", false},
			{"a stream", happened("c6", "stream_online", "5", `"displayName":"Streamer",`), "Streamer is live.", false},
			{"the end of a stream", happened("c7", "stream_offline", "5", `"displayName":"Streamer",`), "", false},
		} {
			before := len(r.bus.sent[topology.Egress])
			entries := r.deliveries()
			e := r.enrich(test.in)
			if e.User == nil || e.User.ID != test.in.UserID || !e.Auth.Matched {
				t.Errorf("%s: tied to %+v", test.name, e.User)
			}
			sent := r.bus.sent[topology.Egress][before:]
			if test.want == "" {
				if len(sent) != 0 {
					t.Errorf("%s: answered %q", test.name, answer.Text(sent[0].Event))
				}
				continue
			}
			if len(sent) != 1 {
				t.Errorf("%s: %d answers; want 1", test.name, len(sent))
				continue
			}
			out := sent[0].Event
			if answer.Text(out) != test.want || out.Channel != "twitch:streamer" || out.UserID != "" || out.Egress.Destination != "twitch" || out.Egress.Type != event.EgressChat {
				t.Errorf("%s: answered %q to %s, user %q, %+v", test.name, answer.Text(out), out.Channel, out.UserID, out.Egress)
			}
			if got := r.deliveries() - entries; got != map[bool]int{true: 0, false: 1}[test.repeated] {
				t.Errorf("%s: %d deliveries were opened", test.name, got)
			}
		}
	})
}

// deliveries returns the number of ledger entries.
func (r *rig) deliveries() int {
	r.t.Helper()
	docs, err := r.client.Collection("deliveries").Documents(r.t.Context()).GetAll()
	if err != nil {
		r.t.Fatal(err)
	}
	return len(docs)
}
