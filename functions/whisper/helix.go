package whisper

import (
	"context"
	"net/http"
	"time"

	"github.com/nicklaw5/helix/v2"

	"parley.internal/shared/credential"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/identity"
	"parley.internal/shared/twitch"
)

// scope is the scope that the bot has to grant (https://dev.twitch.tv/docs/authentication/scopes/).
const scope = "user:manage:whispers"

// minHold is the shortest pause after a 429.
const minHold = time.Second

// api sends whispers (https://dev.twitch.tv/docs/api/reference/#send-whisper). It is safe for concurrent use.
type api struct {
	clientID string
	url      string
	timeout  time.Duration
	client   *http.Client
}

// newAPI makes an api that uses a new connection for each request. A kept connection may be broken after the instance
// was frozen between two events: a whisper written to the connection would have an unknown outcome, although Twitch never
// received the whisper. And on HTTP/2 the library would repeat some requests.
func newAPI(clientID, url string, timeout time.Duration) *api {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true
	transport.ForceAttemptHTTP2 = false
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP1(true)
	return &api{clientID: clientID, url: url, timeout: timeout, client: &http.Client{Transport: transport}}
}

// response is the result of one request.
type response struct {
	failed *twitch.Error // nil if Twitch accepted the whisper
	reset  time.Duration // pause that Twitch demands after a 429; 0 if unknown
}

// send sends one whisper, once. Ids lose their platform here.
func (a *api) send(ctx context.Context, token credential.Token, from, to identity.UserID, text string) response {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	client := twitch.New(twitch.Config{URL: a.url, ClientID: a.clientID, HTTP: a.client})
	failed := client.Call(ctx, token, twitch.SendWhisper, func(c *helix.Client) error {
		_, err := c.SendUserWhisper(&helix.SendUserWhisperParams{FromUserID: from.ID(), ToUserID: to.ID(), Message: text})
		return err
	})
	if failed == nil {
		return response{}
	}
	return response{failed, failed.After}
}

// meaning is the consequence of a response for the whisper.
type meaning int

const (
	accepted     meaning = iota // Twitch accepted the whisper
	unauthorized                // Twitch did not accept the token; a new token may help
	limited                     // Twitch accepts the whisper later
	unsent                      // Twitch never received the whisper
	refused                     // Twitch will never accept the whisper
	unknown                     // Twitch may or may not have accepted the whisper
)

// judge decides the meaning of a response. For refused and unknown, why is the dead letter's error. For the other
// meanings, why is the dead letter's error if no time is left for another attempt.
func judge(r response) (m meaning, why *deadletter.Error) {
	if r.failed == nil {
		return accepted, nil
	}
	m = refused
	switch {
	case r.failed.Outcome == twitch.Unknown:
		m = unknown
	case r.failed.Reason == deadletter.RateLimited:
		m = limited
	case r.failed.Outcome == twitch.NotDone:
		m = unsent
	case r.failed.Outcome == twitch.Unauthorized && r.failed.Reason != deadletter.MissingScope:
		m = unauthorized
	}
	return m, r.failed.DeadLetter()
}

// holdUntil returns the end of the pause after a 429.
func holdUntil(reset time.Duration, now time.Time) time.Time { return now.Add(max(reset, minHold)) }
