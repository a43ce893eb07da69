// Package trigger serves a function: it registers the function with the functions framework, reads a Pub/Sub message
// from each request, and answers with the status code that acknowledges the message or has it delivered again. Start
// with [Register].
//
// The package registers an HTTP function, not a CloudEvent function. The framework serves CloudEvent functions through
// the receiver of the CloudEvents library, and that receiver mixes up concurrent requests. A request may get the context
// of another request, or hang until its deadline (https://github.com/cloudevents/sdk-go/issues/1224 and /1332). A hanging
// request also blocks every later message of its ordering key. In this package each request has its own context. A push
// body is also parsed only once.
//
// The package must not know any function: it passes messages on and does not decode their events.
package trigger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"sync"

	"github.com/GoogleCloudPlatform/functions-framework-go/functions"

	"parley.internal/shared/bus"
	"parley.internal/shared/config"
	"parley.internal/shared/telemetry"
)

// Func handles one Pub/Sub message. A nil result acknowledges the message. After an error Pub/Sub delivers the message
// again, with the back-off of the subscription. The context ends when the client disconnects.
type Func func(ctx context.Context, m bus.Message) error

// Build makes a function from its environment, in the form of os.Environ, and opens the function's connections. The
// context never ends.
type Build func(ctx context.Context, environ []string) (Func, error)

// Register registers a function with the functions framework under a name; the variable FUNCTION_TARGET selects the
// function to serve. The first request builds the function from the environment of the process. If build fails, the
// next request tries again.
func Register(name string, build Build) {
	functions.HTTP(name, (&handler{name: name, build: build, environ: os.Environ}).ServeHTTP)
}

// handler serves one function.
type handler struct {
	name    string
	build   Build
	environ func() []string

	mu    sync.Mutex
	built *built // nil until build has succeeded
}

// built is a function with its deployment and its logger.
type built struct {
	call       Func
	deployment config.Deployment
	log        *slog.Logger
}

// get returns the function. The first call builds the function, and so does the next call after an error. With an error,
// the result still has the deployment and the logger, but no function.
func (h *handler) get(ctx context.Context) (*built, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.built != nil {
		return h.built, nil
	}
	environ := h.environ()
	deployment, _ := config.Load[config.Deployment](environ) // build reports a configuration error
	f := &built{deployment: deployment, log: telemetry.NewLogger(os.Stderr, deployment, false)}
	call, err := h.build(context.WithoutCancel(ctx), environ)
	if err != nil {
		return f, fmt.Errorf("start the function %s: %w", h.name, err)
	}
	f.call = call
	h.built = f
	return f, nil
}

// ServeHTTP answers with one of three status codes: 204 after success, 400 if the request holds no Pub/Sub message, and
// 500 after any other error. Only 204 acknowledges the message.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	f, err := h.get(ctx)
	if err == nil {
		var m bus.Message
		if m, err = read(r, f.deployment.Prefix); err == nil {
			err = f.call(ctx, m)
		}
	}
	var bad *requestError
	switch {
	case err == nil:
		w.WriteHeader(http.StatusNoContent)
	case errors.As(err, &bad):
		f.log.WarnContext(ctx, "not a Pub/Sub message", "function", h.name, "error", err)
		http.Error(w, err.Error(), http.StatusBadRequest)
	default:
		f.log.ErrorContext(ctx, "message not acknowledged", "function", h.name, "error", err)
		http.Error(w, "failed", http.StatusInternalServerError)
	}
}
