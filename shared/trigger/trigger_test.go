package trigger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	cloudevents "github.com/cloudevents/sdk-go/v2"

	"parley.internal/shared/bus"
)

// server serves one function.
func server(t *testing.T, build Build) *httptest.Server {
	t.Helper()
	h := &handler{name: "tester", build: build, environ: func() []string { return []string{"GOOGLE_CLOUD_PROJECT=p"} }}
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

func post(t *testing.T, url, body string, header http.Header) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header
	if header == nil {
		req.Header = http.Header{"Content-Type": {"application/json"}}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}

const push = `{"message":{"attributes":{"a":"b"},"data":"aGVsbG8=","messageId":"m1","message_id":"m1","publishTime":"2026-01-02T03:04:05.678Z"},"subscription":"projects/p/subscriptions/enrichment","deliveryAttempt":3}`

func TestAPushAndACloudEventAreTheSame(t *testing.T) {
	tests := map[string]struct {
		path, body string
		header     http.Header
		source     string
	}{
		"push":                     {"/", push, nil, "//pubsub.googleapis.com/projects/p/subscriptions/enrichment"},
		"push with a topic's path": {"/projects/p/topics/t", push, nil, "//pubsub.googleapis.com/projects/p/topics/t"},
		"push below the function":  {"/enrichment/projects/p/topics/t", push, nil, "//pubsub.googleapis.com/projects/p/topics/t"},
		"binary mode": {"/", push, http.Header{
			"Content-Type": {"application/json"}, "Ce-Id": {"m1"}, "Ce-Specversion": {"1.0"}, "Ce-Type": {bus.MessagePublished}, "Ce-Source": {"//pubsub.googleapis.com/projects/p/topics/t"},
		}, "//pubsub.googleapis.com/projects/p/topics/t"},
		"structured mode": {"/", `{"id":"m1","specversion":"1.0","type":"` + bus.MessagePublished + `","source":"//pubsub.googleapis.com/projects/p/topics/t","datacontenttype":"application/json","data":` + push + `}`,
			http.Header{"Content-Type": {"application/cloudevents+json"}}, "//pubsub.googleapis.com/projects/p/topics/t"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var got cloudevents.Event
			s := server(t, func(context.Context, []string) (Func, error) {
				return func(_ context.Context, ce cloudevents.Event) error { got = ce; return nil }, nil
			})
			if code, body := post(t, s.URL+tt.path, tt.body, tt.header); code != http.StatusNoContent {
				t.Fatalf("answered %d %s", code, body)
			}
			var data struct {
				Message struct {
					Data []byte `json:"data"`
				} `json:"message"`
				DeliveryAttempt int `json:"deliveryAttempt"`
			}
			if err := json.Unmarshal(got.Data(), &data); err != nil {
				t.Fatal(err)
			}
			if got.ID() != "m1" || got.Type() != bus.MessagePublished || got.Source() != tt.source || string(data.Message.Data) != "hello" || data.DeliveryAttempt != 3 {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestWhatIsNoEventIsRefused(t *testing.T) {
	s := server(t, func(context.Context, []string) (Func, error) {
		return func(context.Context, cloudevents.Event) error { t.Error("called"); return nil }, nil
	})
	for name, body := range map[string]string{"not JSON": "hello", "no message": "{}", "unwrapped": `{"message":{}}`, "nothing": ""} {
		if code, _ := post(t, s.URL, body, nil); code != http.StatusBadRequest {
			t.Errorf("%s: answered %d", name, code)
		}
	}
	if code, _ := post(t, s.URL, "{}", http.Header{"Content-Type": {"application/cloudevents+json"}}); code != http.StatusBadRequest {
		t.Errorf("an empty CloudEvent: answered %d", code)
	}
}

func TestAFailureIsToldWithoutItsDetails(t *testing.T) {
	s := server(t, func(context.Context, []string) (Func, error) {
		return func(context.Context, cloudevents.Event) error { return errors.New("secret detail") }, nil
	})
	if code, body := post(t, s.URL, push, nil); code != http.StatusInternalServerError || strings.Contains(body, "secret") {
		t.Errorf("answered %d %s", code, body)
	}
}

func TestBuildingIsTriedAgainUntilItSucceeds(t *testing.T) {
	builds := 0
	s := server(t, func(context.Context, []string) (Func, error) {
		if builds++; builds < 3 {
			return nil, errors.New("not yet")
		}
		return func(context.Context, cloudevents.Event) error { return nil }, nil
	})
	var codes []int
	for range 4 {
		code, _ := post(t, s.URL, push, nil)
		codes = append(codes, code)
	}
	if fmt.Sprint(codes) != "[500 500 204 204]" || builds != 3 {
		t.Errorf("answered %v after %d builds", codes, builds)
	}
}

// Each request is served in its own context, and none hangs, while others are cancelled all around it.
func TestConcurrentRequestsStayApart(t *testing.T) {
	type key struct{}
	h := &handler{name: "tester", environ: func() []string { return nil }, build: func(context.Context, []string) (Func, error) {
		return func(ctx context.Context, ce cloudevents.Event) error {
			if ctx.Value(key{}) != ce.ID() {
				t.Errorf("event %s is served in the context of %v", ce.ID(), ctx.Value(key{}))
			}
			return nil
		}, nil
	}}
	var wg sync.WaitGroup
	for i := range 500 {
		wg.Go(func() {
			id := fmt.Sprint(i)
			ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, id))
			if i%3 == 0 {
				cancel() // a client that went away
			}
			defer cancel()
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader(strings.ReplaceAll(push, "m1", id))))
			if w.Code != http.StatusNoContent {
				t.Errorf("event %s: answered %d %s", id, w.Code, w.Body)
			}
		})
	}
	wg.Wait()
}

func FuzzRead(f *testing.F) {
	f.Add("/", push)
	f.Add("/projects/p/topics/t", `{"message":{"messageId":"1"}}`)
	f.Fuzz(func(t *testing.T, path, body string) {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
		r.URL.Path = path
		ce, err := read(r)
		if err == nil && ce.ID() == "" {
			t.Error("an event without an id")
		}
	})
}
