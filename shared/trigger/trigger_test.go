package trigger

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley.internal/shared/bus"
	"parley.internal/shared/topology"
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

const pushBody = `{"message":{"attributes":{"a":"b"},"data":"aGVsbG8=","messageId":"m1","message_id":"m1","publishTime":"2026-01-02T03:04:05.678Z"},"subscription":"projects/p/subscriptions/enrichment","deliveryAttempt":3}`

// binaryMode returns the headers of a CloudEvent in the binary mode.
func binaryMode(typ, source string) http.Header {
	return http.Header{
		"Content-Type": {"application/json"}, "Ce-Id": {"m1"}, "Ce-Specversion": {"1.0"}, "Ce-Type": {typ}, "Ce-Source": {source},
		"Ce-Time": {"2026-01-02T03:04:05Z"},
	}
}

func TestPushAndCloudEventGiveTheSameMessage(t *testing.T) {
	const ingress, egress = "projects/p/topics/internal.ingress.v1", "projects/p/topics/internal.egress.v1"
	structured := `{"id":"m1","specversion":"1.0","type":"` + MessagePublished + `","source":"//pubsub.googleapis.com/` + egress + `","datacontenttype":"application/json","data":` + pushBody + `}`
	tests := map[string]struct {
		path, body string
		header     http.Header
		topic      topology.Topic
	}{
		"push":                              {"/", pushBody, nil, topology.Ingress}, // the topic of the subscription
		"push with a topic in the path":     {"/" + egress, pushBody, nil, topology.Egress},
		"push below the function":           {"/enrichment/" + egress, pushBody, nil, topology.Egress},
		"push with a path of another topic": {"/projects/p/topics/other", pushBody, nil, topology.Ingress},
		"push from another subscription":    {"/", strings.Replace(pushBody, "subscriptions/enrichment", "subscriptions/other", 1), nil, ""},
		"binary mode":                       {"/", pushBody, binaryMode(MessagePublished, "//pubsub.googleapis.com/"+egress), topology.Egress},
		"structured mode":                   {"/", structured, http.Header{"Content-Type": {"application/cloudevents+json"}}, topology.Egress},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var got bus.Message
			s := server(t, func(context.Context, []string) (Func, error) {
				return func(_ context.Context, m bus.Message) error { got = m; return nil }, nil
			})
			if code, body := post(t, s.URL+tt.path, tt.body, tt.header); code != http.StatusNoContent {
				t.Fatalf("answered %d %s", code, body)
			}
			want := bus.Message{
				Topic: tt.topic, ID: "m1", Data: []byte("hello"), Attributes: map[string]string{"a": "b"},
				Published: time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC), Attempt: 3,
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("message (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCloudEventCompletesTheMessage(t *testing.T) {
	var got bus.Message
	s := server(t, func(context.Context, []string) (Func, error) {
		return func(_ context.Context, m bus.Message) error { got = m; return nil }, nil
	})
	if code, body := post(t, s.URL, `{"message":{"data":"aGVsbG8="}}`, binaryMode(MessagePublished, "//s")); code != http.StatusNoContent {
		t.Fatalf("answered %d %s", code, body)
	}
	if got.ID != "m1" || !got.Published.Equal(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)) || string(got.Data) != "hello" {
		t.Errorf("message = %+v; want the id and the time of the CloudEvent", got)
	}
}

func TestRequestWithoutAMessageIsRefused(t *testing.T) {
	s := server(t, func(context.Context, []string) (Func, error) {
		return func(context.Context, bus.Message) error { t.Error("the function was called"); return nil }, nil
	})
	for name, body := range map[string]string{"not JSON": "hello", "no message": "{}", "unwrapped": `{"message":{}}`, "empty": "", "too large": strings.Repeat(" ", maxBody) + pushBody} {
		if code, _ := post(t, s.URL, body, nil); code != http.StatusBadRequest {
			t.Errorf("%s: answered %d", name, code)
		}
	}
	if code, _ := post(t, s.URL, "{}", http.Header{"Content-Type": {"application/cloudevents+json"}}); code != http.StatusBadRequest {
		t.Errorf("an empty CloudEvent: answered %d", code)
	}
}

func TestCloudEventOfAnotherTypeIsRefused(t *testing.T) {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("{}"))
	r.Header = binaryMode("google.cloud.storage.object.v1.finalized", "//s")
	if _, err := read(r, topology.Prefix{}); err == nil || !strings.Contains(err.Error(), "trigger") {
		t.Errorf("read = %v", err)
	}
}

func TestPushIsReadLeniently(t *testing.T) {
	for name, body := range map[string]string{
		"repeated name":  `{"message":{"messageId":"1","messageId":"2"}}`,
		"unknown field":  `{"message":{"messageId":"1","orderingKey":"k"},"more":{}}`,
		"invalid UTF-8":  `{"message":{"messageId":"1","attributes":{"a":"` + "\xff" + `"}}}`,
		"no data":        `{"message":{"messageId":"1","data":null}}`,
		"trailing space": `{"message":{"messageId":"1"}}` + " \n",
	} {
		m, err := read(httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body)), topology.Prefix{})
		if err != nil || m.ID == "" || len(m.Data) != 0 {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
}

func TestErrorIsAnsweredWithoutDetails(t *testing.T) {
	s := server(t, func(context.Context, []string) (Func, error) {
		return func(context.Context, bus.Message) error { return errors.New("secret detail") }, nil
	})
	if code, body := post(t, s.URL, pushBody, nil); code != http.StatusInternalServerError || strings.Contains(body, "secret") {
		t.Errorf("answered %d %s", code, body)
	}
}

func TestBuildIsRetriedUntilSuccess(t *testing.T) {
	builds := 0
	s := server(t, func(context.Context, []string) (Func, error) {
		if builds++; builds < 3 {
			return nil, errors.New("not yet")
		}
		return func(context.Context, bus.Message) error { return nil }, nil
	})
	var codes []int
	for range 4 {
		code, _ := post(t, s.URL, pushBody, nil)
		codes = append(codes, code)
	}
	if fmt.Sprint(codes) != "[500 500 204 204]" || builds != 3 {
		t.Errorf("answered %v after %d builds", codes, builds)
	}
}

// Each request has its own context, and no request hangs, while other requests are cancelled.
func TestConcurrentRequestsAreIndependent(t *testing.T) {
	type key struct{}
	h := &handler{name: "tester", environ: func() []string { return nil }, build: func(context.Context, []string) (Func, error) {
		return func(ctx context.Context, m bus.Message) error {
			if ctx.Value(key{}) != m.ID {
				t.Errorf("message %s has the context of %v", m.ID, ctx.Value(key{}))
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
				cancel() // a disconnected client
			}
			defer cancel()
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader(strings.ReplaceAll(pushBody, "m1", id))))
			if w.Code != http.StatusNoContent {
				t.Errorf("message %s: answered %d %s", id, w.Code, w.Body)
			}
		})
	}
	wg.Wait()
}

func FuzzRead(f *testing.F) {
	f.Add("/", pushBody)
	f.Add("/projects/p/topics/t", `{"message":{"messageId":"1"}}`)
	f.Fuzz(func(t *testing.T, path, body string) {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
		r.URL.Path = path
		m, err := read(r, topology.Prefix{})
		if err == nil && m.ID == "" {
			t.Error("a message without an id")
		}
	})
}

// BenchmarkPush measures a push from the request to the function, on 2 busy cores:
//
//	                     parsed once                       wrapped as a CloudEvent and parsed twice
//	BenchmarkPush/1KiB    20 µs    7,120 B   25 allocs     52 µs    14,071 B   69 allocs
//	BenchmarkPush/64KiB  700 µs  333,700 B   37 allocs   2400 µs   379,000 B   82 allocs
func BenchmarkPush(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			body := []byte(`{"message":{"attributes":{"type":"chat.message","correlationId":"c1","idempotencyKey":"c1","source":"api-gateway"},"data":"` + base64.StdEncoding.EncodeToString(make([]byte, size)) + `","messageId":"m1","message_id":"m1","publishTime":"2026-01-02T03:04:05.678Z","publish_time":"2026-01-02T03:04:05.678Z"},"subscription":"projects/p/subscriptions/enrichment","deliveryAttempt":3}`)
			h := &handler{name: "tester", environ: func() []string { return []string{"GOOGLE_CLOUD_PROJECT=p"} }, build: func(context.Context, []string) (Func, error) {
				return func(_ context.Context, m bus.Message) error {
					if len(m.Data) != size {
						return fmt.Errorf("%d bytes", len(m.Data))
					}
					return nil
				}, nil
			}}
			b.ReportAllocs()
			for b.Loop() {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/projects/p/topics/internal.ingress.v1", bytes.NewReader(body)))
				if w.Code != http.StatusNoContent {
					b.Fatal(w.Code, w.Body)
				}
			}
		})
	}
}
