package whisper

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/nicklaw5/helix/v2"

	"parley.internal/shared/credential"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/twitch"
)

// scope permits a token to send whispers (https://dev.twitch.tv/docs/authentication/scopes/).
const scope = "user:manage:whispers"

// minHold is the shortest pause after a 429.
const minHold = time.Second

// newTransport makes a transport with a new connection for each request. A kept connection may be broken after the
// instance was frozen between two events. A whisper written to a broken connection would have an unknown outcome, although
// Twitch never received the whisper. HTTP/2 is off, because Go's HTTP/2 client repeats some requests by itself.
func newTransport() *http.Transport {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true
	transport.ForceAttemptHTTP2 = false
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP1(true)
	return transport
}

// newHelix makes the client of Twitch's API.
func newHelix(c Config, transport http.RoundTripper, now func() time.Time) *twitch.Client {
	return twitch.New(twitch.Config{
		URL: c.Credential.Twitch.APIURL, ClientID: c.Credential.Twitch.ClientID, HTTP: &http.Client{Transport: transport}, Now: now,
	})
}

// send sends the whisper, and once more with a new token if Twitch answers 401. Ids lose their platform here.
func (w *execution) send(text string) delivery.Outcome {
	f, ctx := w.function, w.working
	failed := f.account.Do(ctx, w.token, func(token credential.Token) *twitch.Error {
		if err := ctx.Err(); err != nil {
			return &twitch.Error{Outcome: twitch.NotDone, Reason: deadletter.PlatformUnavailable, Err: fmt.Errorf("no time left to send the whisper: %w", err)}
		}
		ctx, cancel := context.WithTimeout(ctx, f.deps.Config.Twitch.Timeout)
		defer cancel()
		return f.helix.Call(ctx, token, twitch.SendWhisper, func(c *helix.Client) error {
			_, err := c.SendUserWhisper(&helix.SendUserWhisperParams{FromUserID: f.bot.ID(), ToUserID: w.to.ID(), Message: text})
			return err
		})
	})
	if failed == nil {
		return delivery.Outcome{Kind: delivery.Sent}
	}
	var until time.Time
	if failed.Reason == deadletter.RateLimited {
		until = holdUntil(failed.After, f.deps.Now())
		if err := f.deps.Limiter.Hold(ctx, f.bot, until); err != nil {
			f.deps.Log.WarnContext(ctx, "hold failed: other instances do not know Twitch's limit", "error", err)
		}
	}
	return w.outcomeOf(failed, until)
}

// outcomeOf converts an error of the client or of the account. A later attempt is possible only if Twitch certainly did
// not execute the request. So an unknown outcome is final: see the package's description. until is the earliest time of
// the next attempt; zero if unknown.
func (w *execution) outcomeOf(failed *twitch.Error, until time.Time) delivery.Outcome {
	if failed.Outcome == twitch.NotDone {
		return w.postpone(failed.Reason, failed.Err, until)
	}
	return refuse(failed.Reason, failed.Err)
}

// holdUntil returns the end of the pause after a 429. reset is the pause named by Twitch, or 0.
func holdUntil(reset time.Duration, now time.Time) time.Time { return now.Add(max(reset, minHold)) }
