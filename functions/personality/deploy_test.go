package personality

import (
	"context"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	cloudevents "github.com/cloudevents/sdk-go/v2"

	"parley.internal/emulator/emulatortest"
	"parley.internal/functions/personality/model"
	"parley.internal/shared/bus"
	"parley.internal/shared/config"
	"parley.internal/shared/egress"
	"parley.internal/shared/event"
	"parley.internal/shared/store"
	"parley.internal/shared/topology"
)

func TestADeployedFunctionStartsOnceItCan(t *testing.T) {
	emulatortest.Both(t, func(t *testing.T, env emulatortest.Env) {
		admin, err := pubsub.NewClient(t.Context(), env.Project)
		if err != nil {
			t.Fatal(err)
		}
		defer admin.Close()
		topic := topology.Prefix{}.Topic(env.Project, topology.Egress).String()
		if _, err := admin.TopicAdminClient.CreateTopic(t.Context(), &pubsubpb.Topic{Name: topic}); err != nil {
			t.Fatal(err)
		}
		ce := pushed(t, &event.Event{
			V: event.Version, Source: "api-gateway", CorrelationID: "c1", Type: event.TypeChatMessage, UserID: "twitch:1",
			Message: &event.Message{Role: event.RoleUser, Text: "hello"},
		})

		var l lazy
		environ := []string{"MODEL_PROVIDER=oracle"}
		for range 2 {
			if err := l.handle(t.Context(), ce, environ); err == nil || !strings.Contains(err.Error(), "MODEL_PROVIDER: ") || !strings.Contains(err.Error(), "GOOGLE_CLOUD_PROJECT: ") {
				t.Fatalf("handle = %v; want what is wrong with the configuration", err)
			}
		}
		environ = []string{"GOOGLE_CLOUD_PROJECT=" + env.Project}
		call, cancel := context.WithCancel(t.Context())
		if err := l.handle(call, ce, environ); err != nil {
			t.Fatal(err)
		}
		cancel() // what the first call built outlives it
		first := l.built
		defer first.close()
		if err := l.handle(t.Context(), ce, []string{"ignored"}); err != nil {
			t.Fatal(err)
		}
		if l.built != first {
			t.Error("the function was built again")
		}

		client, err := store.Connect(t.Context(), env.Deployment())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		entry, err := egress.NewLedger(client, "test", time.Now).Get(t.Context(), egress.DeliveryID("c1", Step))
		if err != nil {
			t.Fatal(err)
		}
		if answer, err := event.Decode(entry.Event); err != nil || !strings.Contains(egress.Text(answer), "hello") {
			t.Errorf("the ledger holds %s, %v", entry.Event, err)
		}
	})
}

// pushed makes the CloudEvent that the functions framework makes of a push.
func pushed(t *testing.T, e *event.Event) cloudevents.Event {
	t.Helper()
	data, err := event.Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	ce := cloudevents.NewEvent()
	ce.SetID("m1")
	ce.SetType(bus.MessagePublished)
	ce.SetSource("//pubsub.googleapis.com/projects/p/topics/internal.user.enriched.v1")
	err = ce.SetData(cloudevents.ApplicationJSON, map[string]any{"message": map[string]any{
		"data": data, "attributes": map[string]string{bus.AttrNext: Step}, "messageId": "m1", "publishTime": time.Now(),
	}})
	if err != nil {
		t.Fatal(err)
	}
	return ce
}

func TestTheConfigurationNamesTheModel(t *testing.T) {
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
