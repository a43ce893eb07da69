package peers

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	firestoreserver "parley.internal/emulator/firestore"
	pubsubserver "parley.internal/emulator/pubsub"
)

var update = flag.Bool("update", false, "rewrite the table in README.md")

// project is the Google Cloud project of the clients' tests.
const project = "peers"

// runTimeout bounds the run of one client's tests.
const runTimeout = 80 * time.Second

// results holds the results of a client's tests.
type results struct {
	version string            // of the client's module
	outcome map[string]string // "pass", "fail" or "skip" by name of the test
	output  []byte            // of all tests
}

func TestClientsWorkWithTheEmbeddedServers(t *testing.T) {
	var sections strings.Builder
	for _, c := range Clients {
		t.Run(c.Package, func(t *testing.T) {
			r := run(t, c, environment(t, serve(t)))
			r.check(t, c)
			sections.WriteString(r.markdown(c))
		})
	}
	if !t.Failed() {
		checkReadme(t, sections.String())
	}
}

// serve starts the embedded servers and returns their variables of the environment.
func serve(t *testing.T) []string {
	t.Helper()
	documents, err := firestoreserver.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := documents.Close(); err != nil {
			t.Error(err)
		}
	})
	messages, err := pubsubserver.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := messages.Close(); err != nil {
			t.Error(err)
		}
	})
	addPublicTopic(t, messages.Addr())
	return []string{
		"FIRESTORE_EMULATOR_HOST=" + documents.Addr(),
		"PUBSUB_EMULATOR_HOST=" + messages.Addr(),
		"HTTPS_PROXY=" + proxy(t, messages.Addr()),
	}
}

// addPublicTopic creates Google's public topic, the topic of one test:
// https://cloud.google.com/pubsub/docs/public-datasets (pubsub-public-data/taxirides-realtime).
func addPublicTopic(t *testing.T, addr string) {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	client, err := pubsub.NewClient(t.Context(), "pubsub-public-data", option.WithGRPCConn(conn))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	topic := &pubsubpb.Topic{Name: "projects/pubsub-public-data/topics/taxirides-realtime"}
	if _, err := client.TopicAdminClient.CreateTopic(t.Context(), topic); err != nil {
		t.Fatal(err)
	}
}

// proxy starts an HTTP proxy. It connects every address to the given one: some tests of Pub/Sub name a regional endpoint
// of the service. So no test can reach a real service.
func proxy(t *testing.T, addr string) string {
	t.Helper()
	var tunnels sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			http.Error(w, "only CONNECT is supported", http.StatusMethodNotAllowed)
			return
		}
		server, err := net.Dial("tcp", addr)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		client, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			server.Close()
			return
		}
		end := func() { client.Close(); server.Close() }
		context.AfterFunc(ctx, end)
		tunnels.Go(func() {
			defer end()
			fmt.Fprint(client, "HTTP/1.1 200 OK\r\n\r\n")
			_, _ = io.Copy(server, buffered)
		})
		tunnels.Go(func() {
			defer end()
			_, _ = io.Copy(client, server)
		})
	}))
	t.Cleanup(func() {
		cancel()
		srv.Close()
		tunnels.Wait()
	})
	return srv.URL
}

// environment returns the whole environment of a client's tests: they must not find credentials of this machine.
func environment(t *testing.T, servers []string) []string {
	t.Helper()
	home := t.TempDir()
	key := filepath.Join(home, "key.json")
	text, err := json.Marshal(map[string]string{
		"type":         "service_account",
		"project_id":   project,
		"client_email": "peers@" + project + ".iam.gserviceaccount.com",
		"private_key":  "unused, because a server without TLS gets no token",
		"token_uri":    "http://127.0.0.1:1/",
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(key, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return append(servers,
		"HOME="+home,
		"TMPDIR="+home,
		"PATH="+os.Getenv("PATH"),
		"GOOGLE_APPLICATION_CREDENTIALS="+key,
		"GCLOUD_TESTS_GOLANG_PROJECT_ID="+project,
		"GCLOUD_TESTS_GOLANG_KEY="+key,
		"GCLOUD_TESTS_GOLANG_FIRESTORE_PROJECT_ID="+project,
		"GCLOUD_TESTS_GOLANG_FIRESTORE_KEY="+key,
	)
}

// run compiles and runs the tests of a client. The working directory is the directory of their package, as with "go test".
func run(t *testing.T, c Client, env []string) results {
	t.Helper()
	list, err := exec.CommandContext(t.Context(), "go", "list", "-f", "{{.Dir}}|{{.Module.Version}}", c.Package).Output()
	if err != nil {
		t.Fatalf("go list %s: %v", c.Package, err)
	}
	dir, version, _ := strings.Cut(strings.TrimSpace(string(list)), "|")
	binary := filepath.Join(t.TempDir(), "client.test")
	if out, err := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", binary, c.Package).CombinedOutput(); err != nil {
		t.Fatalf("go test -c %s: %v\n%s", c.Package, err, out)
	}
	tests := exec.CommandContext(t.Context(), binary, "-test.v", "-test.run="+c.Run, "-test.skip="+c.notRun(),
		"-test.timeout="+runTimeout.String())
	tests.Dir, tests.Env = dir, env
	out, err := tests.CombinedOutput()
	r := results{version: version, outcome: outcomes(out), output: out}
	if len(r.outcome) == 0 {
		t.Fatalf("no test ran: %v\n%s", err, out)
	}
	return r
}

// notRun returns the -test.skip pattern of the tests that must not run.
func (c Client) notRun() string {
	var patterns []string
	for test, d := range c.Differences {
		if d.Outcome != "not run" {
			continue
		}
		var path []string
		for name := range strings.SplitSeq(test, "/") {
			path = append(path, "^"+regexp.QuoteMeta(name)+"$")
		}
		patterns = append(patterns, strings.Join(path, "/"))
	}
	return strings.Join(patterns, "|")
}

// outcomeLine is a line of "go test -v" with the outcome of a test or a subtest.
var outcomeLine = regexp.MustCompile(`(?m)^ *--- (PASS|FAIL|SKIP): (\S+) \(`)

// outcomes returns the outcomes in the output of "go test -v".
func outcomes(out []byte) map[string]string {
	all := map[string]string{}
	for _, m := range outcomeLine.FindAllSubmatch(out, -1) {
		all[string(m[2])] = strings.ToLower(string(m[1]))
	}
	return all
}

// subtests reports whether the test has subtests.
func (r results) subtests(test string) bool {
	for other := range r.outcome {
		if strings.HasPrefix(other, test+"/") {
			return true
		}
	}
	return false
}

// check compares the outcomes with the differences of the client. A test fails together with its subtests, so it needs no
// difference of its own.
func (r results) check(t *testing.T, c Client) {
	t.Helper()
	for _, test := range slices.Sorted(maps.Keys(r.outcome)) {
		want := cmp.Or(c.Differences[test].Outcome, "pass")
		got := r.outcome[test]
		if r.subtests(test) {
			if got == "fail" && !r.fails(test) {
				t.Errorf("%s: fail outside of its subtests", test)
			}
			continue
		}
		if got != want {
			t.Errorf("%s: %s, want %s", test, got, want)
		}
	}
	for test, d := range c.Differences {
		if ran := r.outcome[test] != ""; ran == (d.Outcome == "not run") || r.subtests(test) {
			t.Errorf("%s is listed with the outcome %q; did it run: %v", test, d.Outcome, ran)
		}
	}
	if t.Failed() {
		t.Logf("%s", r.output)
	}
}

// fails reports whether a subtest of the test fails.
func (r results) fails(test string) bool {
	for other, outcome := range r.outcome {
		if outcome == "fail" && strings.HasPrefix(other, test+"/") {
			return true
		}
	}
	return false
}

// markdown returns the section of README.md about the client.
func (r results) markdown(c Client) string {
	count := map[string]int{}
	for test, outcome := range r.outcome {
		if !r.subtests(test) {
			count[outcome]++
		}
	}
	for _, d := range c.Differences {
		if d.Outcome == "not run" {
			count[d.Outcome]++
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n### %s %s\n\nPassed: %d. Failed: %d. Skipped: %d. Not run: %d.\n\n", c.Package, r.version,
		count["pass"], count["fail"], count["skip"], count["not run"])
	b.WriteString("| test | outcome | reason |\n|---|---|---|\n")
	for _, test := range slices.Sorted(maps.Keys(c.Differences)) {
		d := c.Differences[test]
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", test, d.Outcome, d.Reason)
	}
	return b.String()
}

// checkReadme compares the sections about the clients in README.md with the results, or rewrites them with -update.
func checkReadme(t *testing.T, sections string) {
	t.Helper()
	const begin, end = "<!-- clients -->\n", "\n<!-- /clients -->"
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), begin)
	_, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatalf("README.md has no lines %s and %s", strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	want := before + begin + sections + end + after
	switch {
	case *update:
		if err := os.WriteFile("README.md", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	case string(text) != want:
		t.Error("README.md is stale; run: go test -update")
	}
}
