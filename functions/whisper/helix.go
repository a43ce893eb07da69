package whisper

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nicklaw5/helix/v2"

	"parley.internal/shared/credential"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/identity"
)

// scope is what the bot has to grant (https://dev.twitch.tv/docs/authentication/scopes/).
const scope = "user:manage:whispers"

const (
	// maxBody bounds what is read of an answer; a real one has some hundred bytes.
	maxBody = 64 << 10
	// maxSaid bounds what is repeated of Twitch's messages.
	maxSaid = 300
	// maxHold bounds how long whispering rests after a 429: Helix's bucket fills within a minute
	// (https://dev.twitch.tv/docs/api/guide/#twitch-rate-limits).
	maxHold = time.Minute
	// minHold is for a 429 that doesn't say until when.
	minHold = time.Second
)

// api is Twitch's Send Whisper (https://dev.twitch.tv/docs/api/reference/#send-whisper). It is safe for concurrent use.
type api struct {
	clientID string
	url      string
	timeout  time.Duration
	client   *http.Client
}

// newAPI makes an api that sends each request at most once, by a connection of its own. A kept one would be mute after
// an instance had been frozen between two events; a whisper written to it would have an unknown outcome, although
// nobody ever got it. And on HTTP/2 the library would repeat some requests by itself.
func newAPI(clientID, url string, timeout time.Duration) *api {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true
	transport.ForceAttemptHTTP2 = false
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP1(true)
	return &api{clientID: clientID, url: strings.TrimSuffix(url, "/"), timeout: timeout, client: &http.Client{
		Transport: transport,
		// a redirect would carry the token to where nobody decided to send it, and could repeat the whisper
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// answer is what came of one request.
type response struct {
	connected bool   // there was a connection: from then on, Twitch may have got the request
	status    int    // 0 if there was no answer
	said      string // Twitch's message
	reset     string // the header Ratelimit-Reset
	err       error  // why there was no answer
}

// exchange is the transport of one request. The library gives its errors as texts only, and hides an answer that it
// can't decode; whether a whisper may be repeated depends on both.
type exchange struct {
	client    *http.Client
	connected atomic.Bool
	answer    response
}

// Do implements [helix.HTTPClient].
func (x *exchange) Do(req *http.Request) (*http.Response, error) {
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { x.connected.Store(true) }}
	resp, err := x.client.Do(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
	if err != nil {
		x.answer.err = err
		return nil, err
	}
	defer resp.Body.Close()
	x.answer.status, x.answer.reset = resp.StatusCode, resp.Header.Get("Ratelimit-Reset")
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		body = nil // the status has said it all
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// send asks Twitch, once, to whisper. Here, and nowhere before, ids lose their platform.
func (a *api) send(ctx context.Context, token credential.Token, from, to identity.UserID, text string) response {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	x := &exchange{client: a.client}
	client, err := helix.NewClientWithContext(ctx, &helix.Options{
		ClientID: a.clientID, UserAccessToken: token.Access.Reveal(), APIBaseURL: a.url, HTTPClient: x,
	})
	if err != nil {
		return response{err: err}
	}
	resp, err := client.SendUserWhisper(&helix.SendUserWhisperParams{FromUserID: from.ID(), ToUserID: to.ID(), Message: text})
	got := x.answer
	got.connected = x.connected.Load()
	if got.status == 0 && got.err == nil {
		got.err = err // the request could not be made
	}
	if err == nil {
		got.said = quote(resp.ErrorMessage, token.Access)
	}
	return got
}

// quote repeats what a server said, but not at any length, nor the token if it should stand in it.
func quote(said string, token credential.Secret) string {
	said = strings.ToValidUTF8(said, "\uFFFD")
	if secret := token.Reveal(); secret != "" {
		said = strings.ReplaceAll(said, secret, "[redacted]")
	}
	if short, note := fit(said, maxSaid); note != "" {
		return short
	}
	return said
}

// meaning is what an answer means for the whisper.
type meaning int

const (
	accepted     meaning = iota // Twitch took it
	unauthorized                // Twitch did not take it, and perhaps it was for the token
	limited                     // Twitch did not take it, but will later
	unsent                      // Twitch never got it
	refused                     // Twitch did not take it, and never will
	unknown                     // nobody knows whether Twitch took it
)

// judge decides what an answer means, by the page's table of response codes. For refused and unknown, why is the dead
// letter's; for the others, the one that it will be if there is no time left to try again.
func judge(a response) (m meaning, why *deadletter.Error) {
	said := fmt.Errorf("status %d from Twitch: %s", a.status, a.said)
	switch {
	case a.status == 0 && !a.connected:
		return unsent, deadletter.New(deadletter.PlatformUnavailable, fmt.Errorf("no connection to Twitch: %w", a.err))
	case a.status == 0:
		return unknown, deadletter.New(deadletter.OutcomeUnknown, fmt.Errorf("the request was sent, but not answered: %w; it may or may not have been whispered", a.err))
	case a.status >= 200 && a.status < 300:
		return accepted, nil
	case a.status == http.StatusUnauthorized && strings.Contains(strings.ToLower(a.said), "scope"):
		return refused, deadletter.New(deadletter.MissingScope, said)
	case a.status == http.StatusUnauthorized:
		return unauthorized, deadletter.New(deadletter.SenderRefused, said)
	case a.status == http.StatusTooManyRequests:
		return limited, deadletter.New(deadletter.RateLimited, said)
	case a.status >= 500, a.status == http.StatusRequestTimeout:
		return unknown, deadletter.New(deadletter.OutcomeUnknown, fmt.Errorf("status %d from Twitch; it may or may not have been whispered", a.status))
	case a.status == http.StatusBadRequest, a.status == http.StatusNotFound:
		return refused, deadletter.New(deadletter.RecipientRefused, said)
	case a.status == http.StatusForbidden:
		return refused, deadletter.New(deadletter.SenderRefused, said)
	case a.status < 400:
		return refused, deadletter.New(deadletter.NotConfigured, fmt.Errorf("TWITCH_API_URL answered %d, which Twitch's API does not", a.status))
	}
	return refused, deadletter.New(deadletter.RecipientRefused, said)
}

// holdUntil reads when Twitch will take whispers again, in seconds since 1970, within reason.
func holdUntil(reset string, now time.Time) time.Time {
	until := now.Add(minHold)
	var seconds int64
	if _, err := fmt.Sscan(reset, &seconds); err == nil {
		if at := time.Unix(seconds, 0); at.After(until) {
			until = at
		}
	}
	if latest := now.Add(maxHold); until.After(latest) {
		return latest
	}
	return until
}
