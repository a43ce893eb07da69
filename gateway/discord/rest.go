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
)

// rest is Discord's HTTP API (https://discord.com/developers/docs/reference). Requests and the limits of each route are
// the library's; but it sleeps until a limit allows a request, however long that is, and cannot be told to stop. So
// here a route is asked first whether it has room, and whoever wants it waits in a way of their own.
type rest struct {
	session *discordgo.Session
	url     string // with the API's version, and a slash at the end
	timeout time.Duration

	mu      sync.Mutex
	blocked time.Time // by the limit of all routes together
}

// newRest makes a client for a bot. Its errors and the session's log hold no token; a discordgo.RESTError does, in its
// request, and is for that reason never passed on.
func newRest(c Config, client *http.Client) (*rest, error) {
	s, err := discordgo.New("Bot " + c.Token.Reveal())
	if err != nil {
		return nil, fmt.Errorf("make a client for Discord: %w", err)
	}
	s.LogLevel = -1 // nothing: what fails is an error here
	s.MaxRestRetries, s.ShouldRetryOnRateLimit = 0, false
	s.StateEnabled = false
	own := *client
	// a redirect could carry the token elsewhere, and would send a message again
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	own.Transport = watch{own.Transport}
	s.Client = &own
	return &rest{session: s, url: strings.TrimSuffix(c.APIURL, "/") + "/v" + discordgo.APIVersion + "/", timeout: c.AnswerTimeout}, nil
}

// exchange is what is seen of a request while it is under way, which the library does not tell in every case.
type exchange struct {
	connected atomic.Bool
	status    atomic.Int64
	after     atomic.Int64 // what a 429 says, in nanoseconds
	global    atomic.Bool
}

type exchangeKey struct{}

// watch is a transport that notes the answers.
type watch struct{ next http.RoundTripper }

func (w watch) RoundTrip(r *http.Request) (*http.Response, error) {
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
			x.after.Store(int64(seconds * float64(time.Second)))
			x.global.Store(res.Header.Get("X-RateLimit-Global") != "")
		}
	}
	return res, err
}

// failure is a request that did not succeed.
type failure struct {
	status  int           // of the answer; 0 if there was none
	code    int           // Discord's own, where it said one (https://discord.com/developers/docs/topics/opcodes-and-status-codes#json)
	unknown bool          // Discord may have done what was asked: it did not say
	limited bool          // there were too many requests
	after   time.Duration // before it makes sense to try again
	err     error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// reserve takes the room for one request on a route, or tells after how long there may be some.
func (r *rest) reserve(route string) (*discordgo.Bucket, time.Duration) {
	limits := r.session.Ratelimiter
	b := limits.GetBucket(route)
	b.Lock() // while another request of this route is under way
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

// room returns when a route has room, without taking it.
func (r *rest) room(ctx context.Context, route string) error {
	for {
		b, wait := r.reserve(route)
		if b != nil {
			b.Remaining++
			b.Unlock()
			return nil
		}
		if sleep(ctx, wait+time.Millisecond); ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// do makes one request. in is what it sends, as JSON, unless it is nil; out is what the answer is read into. The error
// is a [*failure].
func (r *rest) do(ctx context.Context, method, route, path string, in, out any, options ...discordgo.RequestOption) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return &failure{err: fmt.Errorf("write a request: %w", err)}
		}
	}
	bucket, wait := r.reserve(route)
	if bucket == nil {
		return &failure{limited: true, after: wait, err: errors.New("no room for it yet by Discord's limit")}
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
			return &failure{status: http.StatusOK, unknown: true, err: fmt.Errorf("read Discord's answer: %w", err)}
		}
		return nil
	}
	return r.judge(x, err)
}

func (r *rest) judge(x *exchange, err error) *failure {
	f := &failure{status: int(x.status.Load())}
	if answer, ok := errors.AsType[*discordgo.RESTError](err); ok {
		message := http.StatusText(f.status)
		if answer.Message != nil {
			f.code, message = answer.Message.Code, cmp.Or(answer.Message.Message, message)
		}
		f.err = fmt.Errorf("answer %d from Discord: %d: %s", f.status, f.code, message)
	}
	switch {
	case f.status == 0 && !x.connected.Load():
		f.err = fmt.Errorf("connect to Discord: %w", err)
	case f.status == 0:
		f.unknown, f.err = true, fmt.Errorf("no answer from Discord: %w", err)
	case f.status == http.StatusTooManyRequests:
		f.limited, f.after = true, time.Duration(x.after.Load())
		f.err = errors.New("answer 429 from Discord: too many requests")
		if x.global.Load() {
			r.mu.Lock()
			r.blocked = time.Now().Add(f.after)
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

// get reads, and waits for the limits, until ctx is done.
func (r *rest) get(ctx context.Context, route, path string, out any) error {
	for {
		if err := r.room(ctx, route); err != nil {
			return err
		}
		err := r.do(ctx, http.MethodGet, route, path, nil, out)
		f, ok := errors.AsType[*failure](err)
		if !ok || !f.limited {
			return err
		}
		if sleep(ctx, f.after); ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
