package discord

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bwmarrin/discordgo"

	"parley.internal/shared/retry"
)

// rest is a client of Discord's REST API (https://discord.com/developers/docs/reference). discordgo makes the requests
// and tracks the rate limits of each route. discordgo would also sleep until a limit allows a request, for any time and
// without a context. Therefore rest checks the limit before a request, and waits by itself. A rest is safe for
// concurrent use.
type rest struct {
	session *discordgo.Session
	url     string // base URL with the API version and a trailing slash
	timeout time.Duration

	mu      sync.Mutex
	blocked time.Time // end of the global rate limit
}

// newRest makes a client for the bot. Errors and logs contain no token: a discordgo.RESTError contains the request with
// the token, so rest never returns one.
func newRest(c Config, client *http.Client) (*rest, error) {
	s, err := discordgo.New("Bot " + c.Token.Reveal())
	if err != nil {
		return nil, fmt.Errorf("make a client for Discord: %w", err)
	}
	s.LogLevel = -1 // no logs: rest returns errors
	s.MaxRestRetries, s.ShouldRetryOnRateLimit = 0, false
	s.StateEnabled = false
	own := *client
	// Following a redirect could send the token to a different host, and a message twice.
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	own.Transport = recorder{own.Transport}
	s.Client = &own
	return &rest{session: s, url: strings.TrimSuffix(c.APIURL, "/") + "/v" + discordgo.APIVersion + "/", timeout: c.AnswerTimeout}, nil
}

// exchange records the progress of a request, because discordgo does not report it in every case.
type exchange struct {
	connected  atomic.Bool
	status     atomic.Int64
	retryAfter atomic.Int64 // from a 429 response, in nanoseconds
	global     atomic.Bool  // the 429 response is for all routes
}

type exchangeKey struct{}

// recorder is a transport that records responses in the request's exchange.
type recorder struct{ next http.RoundTripper }

func (w recorder) RoundTrip(r *http.Request) (*http.Response, error) {
	next := w.next
	if next == nil {
		next = http.DefaultTransport
	}
	res, err := next.RoundTrip(r)
	if x, ok := r.Context().Value(exchangeKey{}).(*exchange); ok && err == nil {
		x.status.Store(int64(res.StatusCode))
		if res.StatusCode == http.StatusTooManyRequests {
			seconds, err := strconv.ParseFloat(cmp.Or(res.Header.Get("Retry-After"), res.Header.Get("X-RateLimit-Reset-After")), 64)
			if err != nil || seconds < 0 || seconds > 3600 {
				seconds = 5
			}
			x.retryAfter.Store(int64(seconds * float64(time.Second)))
			x.global.Store(res.Header.Get("X-RateLimit-Global") != "")
		}
	}
	return res, err
}

// reserve takes one request from a route's limit and returns the locked bucket. If the limit is used up, it returns nil
// and the time to wait.
func (r *rest) reserve(route string) (*discordgo.Bucket, time.Duration) {
	limits := r.session.Ratelimiter
	b := limits.GetBucket(route)
	b.Lock() // waits for a request in progress on the same route
	r.mu.Lock()
	wait := time.Until(r.blocked)
	r.mu.Unlock()
	if wait = max(wait, limits.GetWaitTime(b, 1)); wait > 0 {
		b.Unlock()
		return nil, wait
	}
	b.Remaining--
	return b, 0
}

// waitForRoom waits until a route's limit allows a request, or ctx is done. It does not reserve the request.
func (r *rest) waitForRoom(ctx context.Context, route string) error {
	for {
		b, wait := r.reserve(route)
		if b != nil {
			b.Remaining++
			b.Unlock()
			return nil
		}
		if err := retry.Sleep(ctx, wait+time.Millisecond); err != nil {
			return err
		}
	}
}

// do makes one request, within the client's timeout. It sends in as JSON unless in is nil, and decodes the response into
// out unless out is nil. The error is a [*failure].
func (r *rest) do(ctx context.Context, method, route, path string, in, out any, options ...discordgo.RequestOption) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return &failure{err: fmt.Errorf("encode a request to Discord: %w", err)}
		}
	}
	bucket, wait := r.reserve(route)
	if bucket == nil {
		return &failure{limited: true, retryAfter: wait, err: errors.New("rate limit of Discord reached")}
	}
	x := new(exchange)
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, exchangeKey{}, x), r.timeout)
	defer cancel()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { x.connected.Store(true) }})
	data, err := r.session.RequestWithLockedBucket(method, r.url+path, "application/json", body, bucket, 0, append(options, discordgo.WithContext(ctx))...)
	if err == nil {
		if out == nil {
			return nil
		}
		if err := json.Unmarshal(data, out); err != nil {
			return &failure{status: http.StatusOK, unknown: true, err: fmt.Errorf("decode Discord's response: %w", err)}
		}
		return nil
	}
	return r.failureOf(x, err)
}

// failureOf classifies the error of a request.
func (r *rest) failureOf(x *exchange, err error) *failure {
	f := &failure{status: int(x.status.Load())}
	if refusal, ok := errors.AsType[*discordgo.RESTError](err); ok {
		message := http.StatusText(f.status)
		if refusal.Message != nil {
			f.code, message = refusal.Message.Code, cmp.Or(refusal.Message.Message, message)
		}
		f.err = fmt.Errorf("answer %d from Discord: %d: %s", f.status, f.code, message)
	}
	switch {
	case f.status == 0 && !x.connected.Load():
		f.err = fmt.Errorf("connect to Discord: %w", err)
	case f.status == 0:
		f.unknown, f.err = true, fmt.Errorf("no answer from Discord: %w", err)
	case f.status == http.StatusTooManyRequests:
		f.limited, f.retryAfter = true, time.Duration(x.retryAfter.Load())
		f.err = errors.New("answer 429 from Discord: too many requests")
		if x.global.Load() {
			r.mu.Lock()
			r.blocked = time.Now().Add(f.retryAfter)
			r.mu.Unlock()
		}
	case f.status >= 500 || f.status < 300:
		f.unknown = true
		f.err = cmp.Or(f.err, fmt.Errorf("answer %d from Discord", f.status))
	case f.err == nil:
		f.err = fmt.Errorf("answer %d from Discord", f.status)
	}
	return f
}

// get makes a GET request and waits for the rate limits until ctx is done.
func (r *rest) get(ctx context.Context, route, path string, out any) error {
	for {
		if err := r.waitForRoom(ctx, route); err != nil {
			return err
		}
		err := r.do(ctx, http.MethodGet, route, path, nil, out)
		f, ok := errors.AsType[*failure](err)
		if !ok || !f.limited {
			return err
		}
		if err := retry.Sleep(ctx, f.retryAfter); err != nil {
			return err
		}
	}
}
