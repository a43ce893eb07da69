package operator_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"parley.internal/emulator/emulatortest"
	"parley.internal/gateway/operator"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/store"
	"parley.internal/shared/topology"
)

func TestMain(m *testing.M) { emulatortest.Main(m) }

// run runs a deadletters command and returns its output.
func run(t *testing.T, environ []string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := operator.DeadLetters(environ)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	err = cmd.ExecuteContext(t.Context())
	return out.String(), errs.String(), err
}

func ExampleDeadLetters() {
	cmd := operator.DeadLetters(nil)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs([]string{"redrive"})
	fmt.Println(cmd.Execute())
	// Output: select dead letters: ids, --reason, --since, --until, or --all
}

func TestListShowRedriveAndPurge(t *testing.T) {
	emulatortest.Both(t, func(t *testing.T, env emulatortest.Env) {
		admin, err := pubsub.NewClient(t.Context(), env.Project, env.PubSubOption(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { admin.Close() })
		topic := topology.Prefix{}.Topic(env.Project, topology.Ingress).String()
		if _, err := admin.TopicAdminClient.CreateTopic(t.Context(), &pubsubpb.Topic{Name: topic}); err != nil {
			t.Fatal(err)
		}
		client, err := store.Connect(t.Context(), env.Deployment(), env.FirestoreOption(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		letters := deadletter.NewStore(client, time.Now)
		for _, l := range []deadletter.DeadLetter{
			{ID: "one", Reason: deadletter.ModelFailed, Message: "timed out", Source: "personality", Topic: string(topology.Ingress), Data: []byte(`{"a":1}`)},
			{ID: "two", Reason: deadletter.InvalidEvent, Message: "not JSON", Source: "enrichment", Topic: string(topology.Ingress), Data: []byte("\xffpoison")},
		} {
			if _, err := letters.Put(t.Context(), l, 0); err != nil {
				t.Fatal(err)
			}
		}
		environ := []string{"GOOGLE_CLOUD_PROJECT=" + env.Project}

		out, _, err := run(t, environ, "list")
		if err != nil || !strings.Contains(out, "one") || !strings.Contains(out, "two") || !strings.Contains(out, "timed out") {
			t.Errorf("list: %v\n%s", err, out)
		}
		out, _, err = run(t, environ, "list", "--reason", "model_failed", "--since", "1h", "--json")
		var shown struct {
			ID    string
			Event json.RawMessage
		}
		if err != nil || json.Unmarshal([]byte(out), &shown) != nil || shown.ID != "one" || string(shown.Event) != `{"a":1}` {
			t.Errorf("list --json: %v\n%s", err, out)
		}
		if out, _, err = run(t, environ, "show", "two", "--raw"); err != nil || out != "\xffpoison" {
			t.Errorf("show --raw: %v %q", err, out)
		}
		if out, _, err = run(t, environ, "show", "one"); err != nil || !strings.Contains(out, `"reason": "model_failed"`) {
			t.Errorf("show: %v\n%s", err, out)
		}

		if _, stderr, err := run(t, environ, "redrive", "--reason", "model_failed", "--dry-run", "--by", "olga"); err != nil || !strings.Contains(stderr, "1 would be redriven") {
			t.Errorf("redrive --dry-run: %v\n%s", err, stderr)
		}
		if _, stderr, err := run(t, environ, "redrive", "one", "--by", "olga"); err != nil || !strings.Contains(stderr, "1 redriven") {
			t.Errorf("redrive: %v\n%s", err, stderr)
		}
		if _, stderr, err := run(t, environ, "redrive", "one", "--by", "olga"); err == nil || !strings.Contains(stderr, "not open") {
			t.Errorf("redrive again: %v\n%s", err, stderr)
		}
		if out, _, err = run(t, environ, "list"); err != nil || strings.Contains(out, "one") {
			t.Errorf("list of open dead letters: %v\n%s", err, out)
		}

		if _, stderr, err := run(t, environ, "purge", "--all"); err != nil || !strings.Contains(stderr, "2 would be purged") {
			t.Errorf("purge without --yes: %v\n%s", err, stderr)
		}
		if _, stderr, err := run(t, environ, "purge", "--all", "--yes"); err != nil || !strings.Contains(stderr, "2 purged") {
			t.Errorf("purge: %v\n%s", err, stderr)
		}
		if out, _, err = run(t, environ, "list", "--status", "all"); err != nil || strings.Contains(out, "two") {
			t.Errorf("list after purge: %v\n%s", err, out)
		}
	}, emulatortest.InEnvironment)
}

func TestListShowsAnInterruptedRedrive(t *testing.T) {
	emulatortest.Both(t, func(t *testing.T, env emulatortest.Env) {
		client, err := store.Connect(t.Context(), env.Deployment(), env.FirestoreOption(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		l := deadletter.DeadLetter{ID: "one", Reason: deadletter.ModelFailed, Topic: string(topology.Ingress), Data: []byte(`{"a":1}`)}
		if _, err := deadletter.NewStore(client, time.Now).Put(t.Context(), l, 0); err != nil {
			t.Fatal(err)
		}
		environ := []string{"GOOGLE_CLOUD_PROJECT=" + env.Project}
		for range 2 { // the topic does not exist
			if _, stderr, err := run(t, environ, "redrive", "--reason", "model_failed", "--by", "olga"); err == nil || !strings.Contains(stderr, "0 redriven, 1 not") {
				t.Errorf("redrive: %v\n%s", err, stderr)
			}
		}
		if out, _, err := run(t, environ, "list"); err != nil || !strings.Contains(out, "redriving") {
			t.Errorf("list: %v\n%s", err, out)
		}
		if out, _, err := run(t, environ, "list", "--status", "open"); err != nil || strings.Contains(out, "one") {
			t.Errorf("list --status open: %v\n%s", err, out)
		}
	}, emulatortest.InEnvironment)
}

func TestMistakesAreReportedBeforeConnecting(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"redrive"}, "--all"},
		{[]string{"purge"}, "--all"},
		{[]string{"redrive", "x", "--reason", "no_text"}, "not both"},
		{[]string{"list", "--reason", "bad_luck", "--status", "maybe", "--since", "yesterday"}, "--since"},
		{[]string{"list", "--reason", "bad_luck"}, "--reason"},
		{[]string{"list"}, "GOOGLE_CLOUD_PROJECT"},
	} {
		if _, _, err := run(t, nil, tt.args...); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v; want %s", tt.args, err, tt.want)
		}
	}
}

func TestHelpListsEveryReason(t *testing.T) {
	out, _, err := run(t, nil, "--help")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range deadletter.Reasons {
		if !strings.Contains(out, string(r.Reason)) {
			t.Errorf("no %s", r.Reason)
		}
	}
	if !strings.Contains(out, "GOOGLE_CLOUD_PROJECT") {
		t.Error("no environment")
	}
}
