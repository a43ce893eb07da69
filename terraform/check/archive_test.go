package check

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/template"
	"time"

	cloudfirestore "cloud.google.com/go/firestore"
	cloudpubsub "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"parley.internal/emulator/firestore"
	"parley.internal/emulator/port"
	"parley.internal/emulator/pubsub"
	"parley.internal/shared/bus"
	"parley.internal/shared/config"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/store"
	"parley.internal/shared/topology"
	"parley.internal/shared/trigger"
)

// Before a build, the Go buildpack looks for a single package at the root of a function's source, and generates a main
// package. The generated code depends on an import of the framework's package functions at the root
// (https://github.com/GoogleCloudPlatform/buildpacks, cmd/go/functions_framework).

// frameworkFunctions is the framework's package functions.
const frameworkFunctions = "github.com/GoogleCloudPlatform/functions-framework-go/functions"

// mainDeclarative is the main package for functions registered by name, such as Parley's.
var mainDeclarative = template.Must(template.New("main").Parse(`package main

import (
	"log"
	"net/http"
	"os"

	_ "{{.Package}}"

	"github.com/GoogleCloudPlatform/functions-framework-go/funcframework"
)

func main() {
	http.HandleFunc("/robots.txt", http.NotFound)
	http.HandleFunc("/favicon.ico", http.NotFound)
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	if err := funcframework.Start(port); err != nil {
		log.Fatalf("Function failed to start: %v\n", err)
	}
}
`))

// mainExported is for functions that are Go functions of that name.
var mainExported = template.Must(template.New("main").Parse(`package main

import (
	"log"
	"os"

	userfunction "{{.Package}}"

	"github.com/GoogleCloudPlatform/functions-framework-go/funcframework"
)

func main() {
	if err := funcframework.RegisterEventFunctionContext(context.Background(), "/", userfunction.{{.Target}}); err != nil {
		log.Fatal(err)
	}
	log.Fatal(funcframework.Start(os.Getenv("PORT")))
}
`))

// generateMain writes the main package that the buildpack would, and returns its folder.
func generateMain(dir, target string) (string, error) {
	//lint:ignore SA1019 it is what the buildpack uses
	found, err := parser.ParseDir(token.NewFileSet(), dir, nil, parser.ImportsOnly)
	if err != nil {
		return "", err
	}
	names := slices.Sorted(maps.Keys(found))
	if len(names) != 1 || names[0] == "main" {
		return "", fmt.Errorf("packages at the root: %v; want exactly one, other than main", names)
	}
	tmpl := mainExported
	for _, f := range found[names[0]].Files {
		for _, imp := range f.Imports {
			if strings.Trim(imp.Path.Value, `"`) == frameworkFunctions {
				tmpl = mainDeclarative
			}
		}
	}
	mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return "", err
	}
	module := strings.TrimSpace(strings.TrimPrefix(strings.SplitN(string(mod), "\n", 2)[0], "module "))
	if first, _, _ := strings.Cut(module, "/"); !strings.Contains(first, ".") {
		return "", fmt.Errorf("module path %q: the buildpack wants a dot in its first element", module)
	}
	if _, err := os.Stat(filepath.Join(dir, names[0])); err == nil {
		return "", fmt.Errorf("%s at the root has the package's name: the buildpack would confuse the two", names[0])
	}
	main := filepath.Join(dir, "functions.local", "app")
	if err := os.MkdirAll(main, 0o755); err != nil {
		return "", err
	}
	f, err := os.Create(filepath.Join(main, "main.go"))
	if err != nil {
		return "", err
	}
	err = tmpl.Execute(f, map[string]string{"Package": module, "Target": target})
	return main, errors.Join(err, f.Close())
}

// unpack extracts an archive and returns the names of its files.
func unpack(archive, dir string) ([]string, error) {
	zr, err := zip.OpenReader(archive)
	if err != nil {
		return nil, err
	}
	defer zr.Close()
	var names []string
	for _, f := range zr.File {
		names = append(names, f.Name)
		if !filepath.IsLocal(f.Name) {
			return nil, fmt.Errorf("%s is not within the archive", f.Name)
		}
		r, err := f.Open()
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil {
			return nil, err
		}
		to := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(to, data, 0o644); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// building allows one build at a time.
var building sync.Mutex

// buildFunction builds a function's archive as the buildpack does, and returns the program. change may change the
// unpacked files.
func buildFunction(t *testing.T, archive, target string, change func(dir string) error) (string, error) {
	t.Helper()
	building.Lock()
	defer building.Unlock()
	// all functions are built in one folder, and so find the compiled packages of shared in the build cache
	dir := filepath.Join(shared.dir, "build")
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	if _, err := unpack(archive, dir); err != nil {
		return "", err
	}
	if change != nil {
		if err := change(dir); err != nil {
			return "", err
		}
	}
	main, err := generateMain(dir, target)
	if err != nil {
		return "", err
	}
	program := filepath.Join(t.TempDir(), "main")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-ldflags=-s -w", "-o", program, main)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return program, nil
}

func TestArchivesHoldOnlyTheNecessarySource(t *testing.T) {
	t.Parallel()
	for _, o := range minimal(t).all("google_storage_bucket_object") {
		names, err := unpack(archive(t, o.key()), t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"function.go", "go.mod", "go.sum"} {
			if !slices.Contains(names, want) {
				t.Errorf("%s: %s is missing", o.key(), want)
			}
		}
		for _, name := range names {
			first, rest, _ := strings.Cut(name, "/")
			switch {
			case strings.HasSuffix(name, "_test.go"), strings.Contains(name, "testdata"):
				t.Errorf("%s: %s is for tests", o.key(), name)
			case first == "functions" && !strings.HasPrefix(rest, o.key()+"/"):
				t.Errorf("%s: %s is another function's", o.key(), name)
			case first != "functions" && first != "shared" && rest != "":
				t.Errorf("%s: %s is not necessary", o.key(), name)
			}
		}
	}
}

// pushes returns the test message of a subscription.
func pushes(t *testing.T, subscription topology.Subscription) (data []byte, attributes map[string]string) {
	t.Helper()
	topic := subscription.Topic
	e := &event.Event{
		V: event.Version, Source: "api-gateway", CorrelationID: "archive-" + string(topic), Type: event.TypeChatMessage,
		UserID: "twitch:1", Channel: "lobby",
		Message: &event.Message{ID: "m1", Role: event.RoleUser, Text: "hello"},
		Egress:  &event.Egress{Destination: "api-gateway", Type: event.EgressChat},
	}
	switch {
	case topic == topology.Sweep:
		return []byte("{}"), nil
	case subscription.Name == "notice":
		e.UserID, e.Message, e.Payload = "", nil, event.Raw(map[string]string{"text": "hello"})
	case topic == topology.Egress:
		// the recipient of an answer decides the reader
		e.Source, e.Egress = "ingress.twitch", &event.Egress{Destination: "twitch", Type: event.EgressDM}
		attributes = map[string]string{bus.AttrRoute: bus.RouteWhisper, delivery.AttrDelivery: deliveryID}
	case topic == topology.DeadLetter:
		attributes = deadletter.Announcement{ID: "archive", Reason: deadletter.NoText, Message: "tried", Source: "check"}.Attributes(nil)
	case topic == topology.Enriched:
		e.RoutingSlip = []event.Step{{ID: "personality", Status: event.StepPending}}
		attributes = map[string]string{bus.AttrNext: "personality"}
	}
	data, err := event.Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	return data, attributes
}

// deliveryID is the id of the ledger entry of the test answer.
const deliveryID = "archive-delivery"

// leads has the topic of a function's result, by the subscription of the pushed message.
var leads = map[string]topology.Topic{"enrichment": topology.Enriched, "personality": topology.Egress, "notice": topology.Egress}

func TestEveryFunctionIsBuiltAndAnswers(t *testing.T) {
	t.Parallel()
	d := minimal(t)
	for _, f := range d.all("google_cloudfunctions2_function") {
		t.Run(f.key(), func(t *testing.T) {
			t.Parallel()
			program, err := buildFunction(t, archive(t, f.key()), f.text("build_config.0.entry_point"), nil)
			if err != nil {
				t.Fatal(err)
			}
			tryFunction(t, d, f, program)
		})
	}
}

// tryFunction starts the program of a function, pushes a message of every subscription in both forms, and checks the
// answers and the results.
func tryFunction(t *testing.T, d *deployment, f resource, program string) {
	t.Helper()
	published := make(chan string, 100)
	ps, err := pubsub.New(pubsub.WithOnPublish(func(topic string, _ *pubsubpb.PubsubMessage) { published <- topic }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ps.Close() })
	fs, err := firestore.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fs.Close() })
	p := prefix(t, d)
	createTopics(t, ps.Addr(), p)
	url, began, logged := startFunction(t, program, f.text("build_config.0.entry_point"), append(environ(environments(d)[f.key()]),
		"PUBSUB_EMULATOR_HOST="+ps.Addr(), "FIRESTORE_EMULATOR_HOST="+fs.Addr()))
	tries := 0
	for _, s := range topology.Subscriptions() {
		if s.Function != f.key() {
			continue
		}
		data, attributes := pushes(t, s)
		if s.Function == "whisper" {
			open(t, fs.Addr(), data)
		}
		name := p.Topic(project, s.Topic).String()
		for kind, req := range map[string]*http.Request{
			"push":       pushRequest(t, url, name, data, attributes),
			"CloudEvent": cloudEventRequest(t, url, name, data, attributes),
		} {
			if tries++; tries == 1 {
				status := untilAnswered(t, req)
				t.Logf("%s: cold start: the first %s was answered with %d after %v", f.key(), kind, status, time.Since(began).Round(time.Millisecond))
				if status/100 != 2 {
					t.Errorf("%s from %s: answered with %d", kind, s.Topic, status)
				}
			} else if status := answer(t, req); status/100 != 2 {
				t.Errorf("%s from %s: answered with %d", kind, s.Topic, status)
			}
		}
		if next, ok := leads[s.Name]; ok {
			awaitTopic(t, published, p.Topic(project, next).String())
		}
		if s.Function == "whisper" { // Twitch is not configured: the answer becomes one dead letter
			l, err := deadletter.NewStore(connect(t, fs.Addr()), time.Now).Get(t.Context(), deliveryID)
			if err != nil || l.Reason != deadletter.NotConfigured || l.Attempts != 1 {
				t.Errorf("the dead letter of the answer = %+v, %v", l, err)
			}
		}
		if s.Topic == topology.DeadLetter {
			if l, err := deadletter.NewStore(connect(t, fs.Addr()), time.Now).Get(t.Context(), "archive"); err != nil || l.Reason != deadletter.NoText {
				t.Errorf("the dead letter = %+v, %v", l, err)
			}
			metric := d.one(t, "google_logging_metric.dead_letters")
			if !slices.ContainsFunc(logged(), func(line map[string]any) bool { return counts(metric, line, deadletter.NoText) }) {
				t.Errorf("the metric counts no line of the log:\n%s", metric.text("filter"))
			}
		}
	}
}

// awaitTopic waits for a message on a topic. The test fails if a dead letter comes first.
func awaitTopic(t *testing.T, published <-chan string, want string) {
	t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		select {
		case got := <-published:
			if got == want {
				return
			}
			if strings.HasSuffix(got, string(topology.DeadLetter)) {
				t.Fatal("the pushed message was dead-lettered")
			}
		case <-t.Context().Done():
			t.Fatalf("nothing was published on %s", want)
		case <-timeout:
			t.Fatalf("nothing was published on %s", want)
		}
	}
}

// local returns the options of a client for an embedded server.
func local(addr string) []option.ClientOption {
	return []option.ClientOption{
		option.WithEndpoint(addr), option.WithoutAuthentication(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
	}
}

// connect returns a client of an embedded Firestore.
func connect(t *testing.T, addr string) *cloudfirestore.Client {
	t.Helper()
	client, err := store.Connect(t.Context(), config.Deployment{Project: project, Database: "(default)"}, local(addr)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// open opens the ledger entry of an answer.
func open(t *testing.T, addr string, data []byte) {
	t.Helper()
	_, _, err := delivery.NewLedger(connect(t, addr), "check", time.Now).Open(t.Context(), delivery.Entry{
		ID: deliveryID, State: delivery.Pending, UserID: "twitch:1", Destination: "twitch", Type: event.EgressDM,
		Deadline: time.Now().Add(time.Hour), Event: data,
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The import of the framework in the root package must not be removed.
func TestArchiveWithoutTheFrameworkFails(t *testing.T) {
	t.Parallel()
	_, err := buildFunction(t, archive(t, "dlq"), "dlq", func(dir string) error {
		return os.WriteFile(filepath.Join(dir, "function.go"), []byte("package function\n\nimport _ \"parley.internal/functions/dlq\"\n"), 0o644)
	})
	if err == nil || !strings.Contains(err.Error(), "build: ") {
		t.Errorf("a root package without an import of the framework's package functions: %v; the buildpack could not build the package", err)
	}
}

func environ(env map[string]string) []string {
	var all []string
	for name, value := range env {
		all = append(all, name+"="+value)
	}
	return all
}

// counts reports whether a log-based metric counts a log entry with the given reason.
func counts(metric resource, line map[string]any, reason deadletter.Reason) bool {
	for _, term := range strings.Split(strings.TrimSpace(metric.text("filter")), "\n") {
		field, want, _ := strings.Cut(term, "=")
		want = strings.Trim(want, `"`)
		if field, ok := strings.CutPrefix(field, "jsonPayload."); ok && line[field] != want {
			return false
		}
		if field == "severity" && line["severity"] != want {
			return false
		}
	}
	field := strings.TrimSuffix(strings.TrimPrefix(metric.text("label_extractors.reason"), "EXTRACT(jsonPayload."), ")")
	return line[field] == string(reason)
}

// startFunction starts a function's program on a free port, and stops the program at the end of the test. logged returns
// the log entries so far.
func startFunction(t *testing.T, program, target string, env []string) (url string, began time.Time, logged func() []map[string]any) {
	t.Helper()
	addr, err := port.Free()
	if err != nil {
		t.Fatal(err)
	}
	_, number, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	output, err := os.Create(filepath.Join(t.TempDir(), "output"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { output.Close() })
	written := func() string {
		data, err := os.ReadFile(output.Name())
		if err != nil {
			t.Error(err)
		}
		return string(data)
	}
	logged = func() (lines []map[string]any) {
		for _, text := range strings.Split(written(), "\n") {
			var line map[string]any
			if json.Unmarshal([]byte(text), &line) == nil {
				lines = append(lines, line)
			}
		}
		return lines
	}
	cmd := exec.Command(program)
	cmd.Env = append(env, "PORT="+number, "FUNCTION_TARGET="+target, "K_SERVICE=check")
	cmd.Stdout, cmd.Stderr = output, output
	began = time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Logf("stop the function: %v", err)
		}
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			t.Logf("what the function wrote:\n%s", written())
		}
	})
	return "http://" + addr, began, logged
}

// pushRequest makes a push request like Pub/Sub (https://cloud.google.com/pubsub/docs/push#receive_push).
func pushRequest(t *testing.T, url, topic string, data []byte, attributes map[string]string) *http.Request {
	t.Helper()
	body, err := json.Marshal(map[string]any{
		"message": map[string]any{
			"data": base64.StdEncoding.EncodeToString(data), "attributes": attributes, "messageId": "1", "message_id": "1",
			"publishTime": time.Now().UTC().Format(time.RFC3339Nano), "publish_time": time.Now().UTC().Format(time.RFC3339Nano),
		},
		"subscription": "projects/" + project + "/subscriptions/check",
	})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/"+topic, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	return req
}

// cloudEventRequest makes a CloudEvent request in the binary mode of HTTP.
func cloudEventRequest(t *testing.T, url, topic string, data []byte, attributes map[string]string) *http.Request {
	t.Helper()
	body, err := json.Marshal(map[string]any{
		"message": map[string]any{
			"data": base64.StdEncoding.EncodeToString(data), "attributes": attributes, "messageId": "2",
			"publishTime": time.Now().UTC().Format(time.RFC3339Nano),
		},
		"subscription": "projects/" + project + "/subscriptions/check",
	})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"Content-Type": "application/json", "ce-specversion": "1.0", "ce-id": "2", "ce-type": trigger.MessagePublished,
		"ce-source": "//pubsub.googleapis.com/" + topic, "ce-time": time.Now().UTC().Format(time.RFC3339),
	} {
		req.Header.Set(name, value)
	}
	return req
}

// untilAnswered repeats a request until the server listens.
func untilAnswered(t *testing.T, req *http.Request) int {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		again := req.Clone(t.Context())
		body, err := req.GetBody()
		if err != nil {
			t.Fatal(err)
		}
		again.Body = body
		resp, err := http.DefaultClient.Do(again)
		if err == nil {
			if err := resp.Body.Close(); err != nil {
				t.Error(err)
			}
			return resp.StatusCode
		}
		select {
		case <-deadline:
			t.Fatalf("no answer: %v", err)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func answer(t *testing.T, req *http.Request) int {
	t.Helper()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		t.Error(err)
	}
	if resp.StatusCode/100 != 2 {
		t.Logf("answer: %s", body)
	}
	return resp.StatusCode
}

// createTopics creates the topics of the topology.
func createTopics(t *testing.T, addr string, p topology.Prefix) {
	t.Helper()
	client, err := cloudpubsub.NewClient(t.Context(), project, local(addr)...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for _, topic := range topology.Topics() {
		if _, err := client.TopicAdminClient.CreateTopic(t.Context(), &pubsubpb.Topic{Name: p.Topic(project, topic).String()}); err != nil {
			t.Fatal(err)
		}
	}
}
