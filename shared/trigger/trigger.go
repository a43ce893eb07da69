// Package trigger is how a function is called: it registers a CloudEvent function with the functions framework, and
// gives it each Pub/Sub message that a push subscription posts.
//
// The framework has a registration for CloudEvent functions of its own, which this package does without: it hands
// requests over by the CloudEvents library's receiver, which mixes up concurrent ones. A request may be served within
// another's context, or hang until its deadline (https://github.com/cloudevents/sdk-go/issues/1224 and /1332), and with
// it every later message of its ordering key. Here a request is read, served and answered by itself, in its own
// context.
package trigger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/GoogleCloudPlatform/functions-framework-go/functions"
	cloudevents "github.com/cloudevents/sdk-go/v2"

	"parley.internal/shared/bus"
	"parley.internal/shared/config"
	"parley.internal/shared/telemetry"
)

// Func is a CloudEvent function. Once it returns nil the message is acknowledged; after an error it is delivered
// again, by the back-off of its subscription. The context ends when nobody waits for the answer any more.
type Func func(ctx context.Context, ce cloudevents.Event) error

// Build makes a function of a configuration, with the connections that it keeps. The context does not end.
type Build func(ctx context.Context, environ []string) (Func, error)

// Register makes a function known to the functions framework under a name, which FUNCTION_TARGET selects. It is built
// from the process's environment when the first event comes, and, while that fails, again at the next one.
func Register(name string, build Build) {
	functions.HTTP(name, (&handler{name: name, build: build, environ: os.Environ}).ServeHTTP)
}

// maxBody is the most bytes of a request: a message of 10 MB in base64, with its attributes
// (https://cloud.google.com/pubsub/quotas#resource_limits).
const maxBody = 16 << 20

type handler struct {
	name    string
	build   Build
	environ func() []string

	mu  sync.Mutex
	fn  Func
	log *slog.Logger
}

// get builds the function, once.
func (h *handler) get(ctx context.Context) (Func, *slog.Logger, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fn != nil {
		return h.fn, h.log, nil
	}
	environ := h.environ()
	// what is wrong with the deployment is the function's to tell
	deployment, _ := config.Load[config.Deployment](environ)
	log := telemetry.NewLogger(os.Stderr, deployment, false)
	fn, err := h.build(context.WithoutCancel(ctx), environ)
	if err != nil {
		return nil, log, fmt.Errorf("start the function %s: %w", h.name, err)
	}
	h.fn, h.log = fn, log
	return fn, log, nil
}

// ServeHTTP answers 204 to what is done, 400 to what is no event, and 500 to what has to come again.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	fn, log, err := h.get(ctx)
	if err == nil {
		var ce *cloudevents.Event
		if ce, err = read(r); err == nil {
			err = fn(ctx, *ce)
		}
	}
	var bad *requestError
	switch {
	case err == nil:
		w.WriteHeader(http.StatusNoContent)
	case errors.As(err, &bad):
		log.WarnContext(ctx, "not a Pub/Sub message", "function", h.name, "error", err)
		http.Error(w, err.Error(), http.StatusBadRequest)
	default:
		log.ErrorContext(ctx, "the event will be delivered again", "function", h.name, "error", err)
		http.Error(w, "failed", http.StatusInternalServerError)
	}
}

// requestError is a request that holds no event.
type requestError struct{ err error }

func (e *requestError) Error() string { return e.err.Error() }
func (e *requestError) Unwrap() error { return e.err }

// read takes a CloudEvent from a request, in either of the HTTP modes, or makes one of a push.
func read(r *http.Request) (*cloudevents.Event, error) {
	r.Body = http.MaxBytesReader(nil, r.Body, maxBody)
	if r.Header.Get("Ce-Id") != "" || strings.HasPrefix(r.Header.Get("Content-Type"), "application/cloudevents") {
		ce, err := cloudevents.NewEventFromHTTPRequest(r)
		if err == nil {
			err = ce.Validate()
		}
		if err != nil {
			return nil, &requestError{fmt.Errorf("read a CloudEvent: %w", err)}
		}
		return ce, nil
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, &requestError{fmt.Errorf("read a push: %w", err)}
	}
	var push struct {
		Message *struct {
			MessageID   string    `json:"messageId"`
			PublishTime time.Time `json:"publishTime"`
		} `json:"message"`
		Subscription string `json:"subscription"`
	}
	if err := json.Unmarshal(body, &push); err != nil {
		return nil, &requestError{fmt.Errorf("read a push: %w", err)}
	}
	if push.Message == nil || push.Message.MessageID == "" {
		return nil, &requestError{errors.New("read a push: no message with an id; is payload unwrapping on?")}
	}
	ce := cloudevents.NewEvent()
	ce.SetID(push.Message.MessageID)
	ce.SetType(bus.MessagePublished)
	ce.SetSource("//pubsub.googleapis.com/" + source(r.URL.Path, push.Subscription))
	if !push.Message.PublishTime.IsZero() {
		ce.SetTime(push.Message.PublishTime)
	}
	if err := ce.SetData(cloudevents.ApplicationJSON, json.RawMessage(body)); err != nil {
		return nil, &requestError{fmt.Errorf("read a push: %w", err)}
	}
	return &ce, nil
}

// source is where a push says that it comes from: the topic, if the endpoint's path ends in one, as the functions
// framework has it, else the subscription.
func source(path, subscription string) string {
	if i := strings.Index(path, "projects/"); i >= 0 && strings.Contains(path[i:], "/topics/") {
		return path[i:]
	}
	return subscription
}
