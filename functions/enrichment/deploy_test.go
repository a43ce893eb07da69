package enrichment_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/GoogleCloudPlatform/functions-framework-go/funcframework"

	firestoreserver "parley.internal/emulator/firestore"
	"parley.internal/emulator/port"
	pubsubserver "parley.internal/emulator/pubsub"
	"parley.internal/functions/enrichment"
	"parley.internal/shared/config"
	"parley.internal/shared/event"
	"parley.internal/shared/topology"
)

// The deployed form: the framework's server, with the function registered by init, and a message in Pub/Sub's push format.
func TestPushedMessageIsEnriched(t *testing.T) {
	fs, err := firestoreserver.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fs.Close() })
	published := make(chan *pubsubpb.PubsubMessage, 10)
	topics := make(chan string, 10)
	ps, err := pubsubserver.New(pubsubserver.WithOnPublish(func(topic string, m *pubsubpb.PubsubMessage) {
		topics <- topic
		published <- m
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ps.Close() })
	t.Setenv("FIRESTORE_EMULATOR_HOST", fs.Addr())
	t.Setenv("PUBSUB_EMULATOR_HOST", ps.Addr())
	t.Setenv("BUS_PREFIX", "staging.")
	t.Setenv("LOG_LEVEL", "error")
	t.Setenv("FUNCTION_TARGET", "enrichment")
	const project = "deployed"
	prefix, err := topology.ParsePrefix("staging.")
	if err != nil {
		t.Fatal(err)
	}
	admin, err := pubsub.NewClient(t.Context(), project)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { admin.Close() })
	for _, topic := range topology.Topics() {
		if _, err := admin.TopicAdminClient.CreateTopic(t.Context(), &pubsubpb.Topic{Name: prefix.Topic(project, topic).String()}); err != nil {
			t.Fatal(err)
		}
	}

	base := "http://" + serve(t)
	push := func(data []byte) int {
		t.Helper()
		body, err := json.Marshal(map[string]any{
			"subscription": "projects/deployed/subscriptions/staging.enrichment",
			"message": map[string]any{
				"data": data, "attributes": map[string]string{"type": "chat.message"}, "messageId": "7", "publishTime": "2026-05-01T12:00:00.000Z",
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.Post(base+"/projects/deployed/topics/staging.internal.ingress.v1", "application/json", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	data, err := event.Encode(says("c1", "twitch:123", "hello"))
	if err != nil {
		t.Fatal(err)
	}

	// Without a project the function cannot start: the message stays, and the next push is a retry.
	t.Setenv("GOOGLE_CLOUD_PROJECT", "")
	if code := push(data); acknowledged(code) {
		t.Errorf("status %d without a configuration; want one that has the message pushed again", code)
	}
	t.Setenv("GOOGLE_CLOUD_PROJECT", project)
	if code := push(data); !acknowledged(code) {
		t.Fatalf("status %d", code)
	}
	m := <-published
	if topic := <-topics; topic != "projects/deployed/topics/staging.internal.user.enriched.v1" {
		t.Errorf("published to %s", topic)
	}
	e, err := event.Decode(m.GetData())
	if err != nil {
		t.Fatal(err)
	}
	if e.UserID != "twitch:123" || !e.Auth.Matched || e.Auth.At.Format(time.RFC3339) != "2026-05-01T12:00:00Z" || m.GetAttributes()["next"] != "" || m.GetOrderingKey() != "lobby|twitch:123" {
		t.Errorf("event = %+v, auth = %+v, attributes %v", e, e.Auth, m.GetAttributes())
	}

	// A malformed event is dead-lettered with its bytes, and acknowledged.
	if code := push([]byte("not JSON")); !acknowledged(code) {
		t.Errorf("status %d for what can never be processed", code)
	}
	if topic := <-topics; topic != "projects/deployed/topics/staging.internal.deadletter.v1" {
		t.Errorf("published to %s", topic)
	}
	if m := <-published; string(m.GetData()) != "not JSON" {
		t.Errorf("dead letter = %q", m.GetData())
	}
}

// acknowledged reports whether Pub/Sub treats a status as an acknowledgement
// (https://cloud.google.com/pubsub/docs/push#receive_push).
func acknowledged(code int) bool {
	return slices.Contains([]int{http.StatusProcessing, http.StatusOK, http.StatusCreated, http.StatusAccepted, http.StatusNoContent}, code)
}

// serve starts the framework's server and waits until it listens. The server ends with the process.
func serve(t *testing.T) string {
	t.Helper()
	addr, err := port.Free()
	if err != nil {
		t.Fatal(err)
	}
	host, number, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() { failed <- funcframework.StartHostPort(host, number) }()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
			return addr
		}
		select {
		case err := <-failed:
			t.Fatal(err)
		case <-ctx.Done():
			t.Fatal(ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
}

func TestConfig(t *testing.T) {
	c, err := config.Load[enrichment.Config]([]string{"GOOGLE_CLOUD_PROJECT=p", "DISCORD_ROLES=Mods=moderator,Server Booster=subscriber"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Users.SessionLength != 24*time.Hour || c.Rules.TTL != time.Minute || c.Users.DiscordRoles["Server Booster"] != "subscriber" {
		t.Errorf("configuration = %+v", c)
	}
	_, err = config.Load[enrichment.Config]([]string{"GOOGLE_CLOUD_PROJECT=p", "DISCORD_ROLES=Mods=", "SESSION_LENGTH=-1s", "RULES_CACHE_TTL=1ms", "EGRESS_DEADLINE=0s"})
	for _, name := range []string{"DISCORD_ROLES", "SESSION_LENGTH", "RULES_CACHE_TTL", "EGRESS_DEADLINE"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("error %v does not name %s", err, name)
		}
	}
	for _, v := range config.Describe[enrichment.Config]() {
		if v.Help == "" {
			t.Errorf("%s is not explained", v.Name)
		}
	}
}
