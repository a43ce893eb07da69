package personality

import (
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"parley.internal/emulator/emulatortest"
	"parley.internal/functions/personality/model"
	"parley.internal/shared/answer"
	"parley.internal/shared/bus"
	"parley.internal/shared/config"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/store"
	"parley.internal/shared/topology"
)

func TestPushedMessageIsAnswered(t *testing.T) {
	emulatortest.Both(t, func(t *testing.T, env emulatortest.Env) {
		admin, err := pubsub.NewClient(t.Context(), env.Project, env.PubSubOption(t))
		if err != nil {
			t.Fatal(err)
		}
		defer admin.Close()
		topic := topology.Prefix{}.Topic(env.Project, topology.Egress).String()
		if _, err := admin.TopicAdminClient.CreateTopic(t.Context(), &pubsubpb.Topic{Name: topic}); err != nil {
			t.Fatal(err)
		}
		message := pushed(t, &event.Event{
			V: event.Version, Source: "api-gateway", CorrelationID: "c1", Type: event.TypeChatMessage, UserID: "twitch:1",
			Message: &event.Message{Role: event.RoleUser, Text: "hello"},
		})

		_, err = build(t.Context(), []string{"MODEL_PROVIDER=oracle"})
		if err == nil || !strings.Contains(err.Error(), "MODEL_PROVIDER: ") || !strings.Contains(err.Error(), "GOOGLE_CLOUD_PROJECT: ") {
			t.Fatalf("build = %v; want what is wrong with the configuration", err)
		}
		handle, err := build(t.Context(), []string{"GOOGLE_CLOUD_PROJECT=" + env.Project})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := handle(t.Context(), message); err != nil {
				t.Fatal(err)
			}
		}

		client, err := store.Connect(t.Context(), env.Deployment(), env.FirestoreOption(t))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		entry, err := delivery.NewLedger(client, "test", time.Now).Get(t.Context(), delivery.ID("c1", Step))
		if err != nil {
			t.Fatal(err)
		}
		if said, err := event.Decode(entry.Event); err != nil || !strings.Contains(answer.Text(said), "hello") {
			t.Errorf("the ledger holds %s, %v", entry.Event, err)
		}
	}, emulatortest.InEnvironment)
}

// pushed returns the message of a push.
func pushed(t *testing.T, e *event.Event) bus.Message {
	t.Helper()
	data, err := event.Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	return bus.Message{Topic: topology.Enriched, ID: "m1", Data: data, Attributes: map[string]string{bus.AttrNext: Step}, Published: time.Now()}
}

func TestConfiguredModel(t *testing.T) {
	tests := []struct {
		environ []string
		want    func(model.Model) bool
	}{
		{nil, func(m model.Model) bool { _, ok := m.(model.Embedded); return ok }},
		{[]string{"MODEL_PROVIDER=gemini", "MODEL_NAME=m", "GEMINI_API_KEY=k"}, func(m model.Model) bool { _, ok := m.(*model.Gemini); return ok }},
		{[]string{"MODEL_PROVIDER=openai", "MODEL_NAME=m", "OPENAI_API_KEY=k"}, func(m model.Model) bool { _, ok := m.(*model.OpenAI); return ok }},
	}
	for _, tt := range tests {
		c, err := config.Load[Config](append(tt.environ, "GOOGLE_CLOUD_PROJECT=p"))
		if err != nil {
			t.Fatal(err)
		}
		if m, err := newModel(t.Context(), c); err != nil || !tt.want(m) {
			t.Errorf("%v: %T, %v", tt.environ, m, err)
		}
	}
}
