package playground

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"parley.internal/emulator/discord"
	"parley.internal/emulator/fake"
	"parley.internal/emulator/twitch"
)

// route is an operation of the API.
type route struct {
	pattern string // of http.ServeMux
	query   string // the allowed query parameters, separated by spaces
	// serve returns the body of the response, or nil for a response without a body.
	serve func(*http.Request) (any, error)
}

// The query parameters of lists: of a fixed list, of a list that grows, and of a list of messages.
const (
	pages    = "after limit"
	growing  = pages + " wait"
	messages = growing + " user"
)

// newAPI serves the routes of the fakes that are not nil.
func newAPI(t *twitch.Server, d *discord.Server) http.Handler {
	var routes []route
	if t != nil {
		routes = append(routes, twitchAPI{t}.routes()...)
	}
	if d != nil {
		routes = append(routes, discordAPI{d}.routes()...)
	}
	mux := http.NewServeMux()
	for _, rt := range routes {
		mux.HandleFunc(rt.pattern, rt.handle)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h, pattern := mux.Handler(r); pattern == "" {
			writeUnserved(w, r, h)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// writeUnserved refuses a request without a route as JSON, with the status and the header Allow of the mux.
func writeUnserved(w http.ResponseWriter, r *http.Request, h http.Handler) {
	rec := &discarded{header: http.Header{}}
	h.ServeHTTP(rec, r)
	if rec.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", rec.header.Get("Allow"))
		writeRefusal(w, refuse(rec.status, "", "the method %s is not allowed here", r.Method))
		return
	}
	writeRefusal(w, refuse(http.StatusNotFound, "", "there is no %s", r.URL.Path))
}

// discarded is a ResponseWriter that keeps the header only.
type discarded struct {
	header http.Header
	status int
}

func (d *discarded) Header() http.Header         { return d.header }
func (d *discarded) WriteHeader(status int)      { d.status = status }
func (d *discarded) Write(b []byte) (int, error) { return len(b), nil }

func (rt route) handle(w http.ResponseWriter, r *http.Request) {
	body, err := any(nil), rt.checkQuery(r)
	if err == nil {
		body, err = rt.serve(r)
	}
	var no *refusal
	switch {
	case errors.As(err, &no):
		writeRefusal(w, no)
	case errors.Is(err, fake.ErrClosed):
		writeRefusal(w, refuse(http.StatusServiceUnavailable, "", "the fake is closed"))
	case err != nil:
		writeRefusal(w, refuse(http.StatusInternalServerError, "", "%v", err))
	case body == nil:
		w.WriteHeader(http.StatusNoContent)
	default:
		writeJSON(w, http.StatusOK, body)
	}
}

// checkQuery returns an error for an unknown or repeated query parameter.
func (rt route) checkQuery(r *http.Request) error {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return refuse(http.StatusBadRequest, "query", "%v", err)
	}
	for name, values := range query {
		if !slices.Contains(strings.Fields(rt.query), name) {
			return refuse(http.StatusBadRequest, name, "unknown query parameter")
		}
		if len(values) > 1 {
			return refuse(http.StatusBadRequest, name, "is repeated")
		}
	}
	return nil
}

const (
	defaultPage = 100
	maxPage     = 1000
	// maxWait bounds the wait for an entry of a list, in seconds.
	maxWait = 30
)

// listing is a part of a list. Next is the value of after for the following part.
type listing[T any] struct {
	Items []T `json:"items"`
	Next  int `json:"next"`
}

// number returns a query parameter, or its default.
func number(r *http.Request, name string, otherwise, least, most int) (int, error) {
	text := r.URL.Query().Get(name)
	if !r.URL.Query().Has(name) {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		return 0, refuse(http.StatusBadRequest, name, "%q is not a number from %d to %d", text, least, most)
	}
	return n, nil
}

// list returns the requested part of a list. from returns the entries after the first n; convert converts an entry, and
// reports whether the entry is wanted. With the query parameter wait, list waits for a wanted entry by await.
func list[S, T any](r *http.Request, await func(context.Context, func() bool) error, from func(n int) []S, convert func(S) (T, bool)) (listing[T], error) {
	after, err := number(r, "after", 0, 0, 1<<31-1)
	limit, limitErr := number(r, "limit", defaultPage, 1, maxPage)
	wait, waitErr := number(r, "wait", 0, 0, maxWait)
	if err := errors.Join(err, limitErr, waitErr); err != nil {
		return listing[T]{}, err
	}
	var p listing[T]
	read := func() bool {
		p = listing[T]{Items: []T{}, Next: after}
		for _, entry := range from(after) {
			if len(p.Items) == limit {
				break
			}
			if item, wanted := convert(entry); wanted {
				p.Items = append(p.Items, item)
			}
			p.Next++
		}
		return len(p.Items) > 0
	}
	if read() || wait == 0 {
		return p, nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), time.Duration(wait)*time.Second)
	defer cancel()
	if err := await(ctx, read); err != nil && ctx.Err() == nil {
		return listing[T]{}, err
	}
	return p, nil
}

// all wraps a conversion of a list with all entries wanted.
func all[S, T any](convert func(S) T) func(S) (T, bool) {
	return func(s S) (T, bool) { return convert(s), true }
}

// count is the number of affected connections.
type count struct {
	Connections int `json:"connections"`
}

// seconds is a duration in the JSON of the API.
func seconds(field string, n int, most time.Duration) (time.Duration, error) {
	if n < 0 || time.Duration(n) > most/time.Second {
		return 0, invalid(field, "%d is not a number of seconds from 0 to %d", n, int(most/time.Second))
	}
	return time.Duration(n) * time.Second, nil
}

// required returns an error if a text is empty.
func required(field, text string) error {
	if text == "" {
		return invalid(field, "is required")
	}
	return nil
}
