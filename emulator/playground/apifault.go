package playground

import (
	"net/http"
	"time"

	"parley.internal/emulator/discord"
	"parley.internal/emulator/fake"
	"parley.internal/emulator/twitch"
)

// Bounds of faults.
const (
	maxFaultDelay = 10 * time.Minute
	maxFaultTimes = 10_000
)

// repetition is the part of a fault that counts events.
type repetition struct {
	Skip  int `json:"skip"`
	Times int `json:"times"`
}

func (c repetition) check(field string) error {
	if c.Skip < 0 || c.Skip > maxFaultTimes {
		return invalid(field+".skip", "is not from 0 to %d", maxFaultTimes)
	}
	if c.Times < 0 || c.Times > maxFaultTimes {
		return invalid(field+".times", "is not from 0 to %d", maxFaultTimes)
	}
	return nil
}

// milliseconds is a duration in the JSON of a fault.
func milliseconds(field string, n int) (time.Duration, error) {
	d := time.Duration(n) * time.Millisecond
	if n < 0 || int64(n) > maxFaultDelay.Milliseconds() {
		return 0, invalid(field, "%d is not a number of milliseconds from 0 to %d", n, maxFaultDelay.Milliseconds())
	}
	return d, nil
}

// httpFault is the failure of an HTTP request (see fake.HTTPFault).
type httpFault struct {
	repetition   `json:",embed"`
	Method       string            `json:"method"`
	Path         string            `json:"path"`
	DelayMS      int               `json:"delayMs"`
	Done         bool              `json:"done"`
	Status       int               `json:"status"`
	Headers      map[string]string `json:"headers"`
	Message      string            `json:"message"`
	RetryAfterMS int               `json:"retryAfterMs"`
	Global       bool              `json:"global"`
	Drop         bool              `json:"drop"`
	Hang         bool              `json:"hang"`
}

// inject checks the fault and passes it to the fake.
func (f httpFault) inject(fail func(fake.HTTPFault)) (err error) {
	to := fake.HTTPFault{
		Method: f.Method, Path: f.Path, Skip: f.Skip, Times: f.Times, Done: f.Done, Status: f.Status, Header: http.Header{},
		Message: f.Message, Global: f.Global, Drop: f.Drop, Hang: f.Hang,
	}
	if err := f.check("http"); err != nil {
		return err
	}
	if f.Status != 0 && (f.Status < 200 || f.Status > 599) {
		return invalid("http.status", "is not from 200 to 599")
	}
	if to.Delay, err = milliseconds("http.delayMs", f.DelayMS); err != nil {
		return err
	}
	if to.RetryAfter, err = milliseconds("http.retryAfterMs", f.RetryAfterMS); err != nil {
		return err
	}
	for name, value := range f.Headers {
		to.Header.Set(name, value)
	}
	fail(to)
	return nil
}

// exactlyOne returns an error unless one kind of fault is given.
func exactlyOne(kinds string, given ...bool) error {
	n := 0
	for _, g := range given {
		if g {
			n++
		}
	}
	if n != 1 {
		return invalid("body", "must have exactly one of %s", kinds)
	}
	return nil
}

// closeCode returns an error for a code that a WebSocket server does not send.
func closeCode(field string, code int) error {
	if code < 4000 || code > 4999 {
		return invalid(field, "is not from 4000 to 4999")
	}
	return nil
}

func (a twitchAPI) fault(r *http.Request) (any, error) {
	var in struct {
		HTTP *httpFault `json:"http"`
		Chat *struct {
			repetition `json:",embed"`
			User       string `json:"user"`
			Channel    string `json:"channel"`
			Notice     string `json:"notice"`
			Done       bool   `json:"done"`
			Drop       bool   `json:"drop"`
		} `json:"chat"`
		IRC *struct {
			Login   string `json:"login"`
			Effect  string `json:"effect"`
			DelayMS int    `json:"delayMs"`
		} `json:"irc"`
		EventSub *struct {
			Effect string `json:"effect"`
			Code   int    `json:"code"`
		} `json:"eventsub"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if err := exactlyOne("http, chat, irc and eventsub", in.HTTP != nil, in.Chat != nil, in.IRC != nil, in.EventSub != nil); err != nil {
		return nil, err
	}
	switch {
	case in.HTTP != nil:
		return count{}, in.HTTP.inject(a.srv.FailHTTP)
	case in.Chat != nil:
		f := in.Chat
		if err := f.check("chat"); err != nil {
			return nil, err
		}
		a.srv.FailChat(twitch.ChatFault{
			Login: f.User, Channel: f.Channel, Skip: f.Skip, Times: f.Times, Notice: f.Notice, Done: f.Done, Drop: f.Drop,
		})
	case in.IRC != nil:
		return a.faultIRC(in.IRC.Login, in.IRC.Effect, in.IRC.DelayMS)
	default:
		return a.faultEventSub(in.EventSub.Effect, in.EventSub.Code)
	}
	return count{}, nil
}

func (a twitchAPI) faultIRC(login, effect string, delay int) (any, error) {
	d, err := milliseconds("irc.delayMs", delay)
	if err != nil {
		return nil, err
	}
	switch effect {
	case "drop":
		return count{a.srv.DropIRC(login)}, nil
	case "reconnect":
		return count{a.srv.ReconnectIRC(login)}, nil
	case "delay":
		return count{a.srv.DelayIRC(login, d)}, nil
	}
	return nil, invalid("irc.effect", "%q is not drop, reconnect or delay", effect)
}

func (a twitchAPI) faultEventSub(effect string, code int) (any, error) {
	switch effect {
	case "drop":
		return count{a.srv.DropEventSub()}, nil
	case "reconnect":
		return count{a.srv.ReconnectEventSub()}, nil
	case "repeat":
		return count{a.srv.RepeatEvent()}, nil
	case "close":
		if err := closeCode("eventsub.code", code); err != nil {
			return nil, err
		}
		return count{a.srv.CloseEventSub(code)}, nil
	}
	return nil, invalid("eventsub.effect", "%q is not drop, reconnect, repeat or close", effect)
}

func (a discordAPI) fault(r *http.Request) (any, error) {
	var in struct {
		HTTP     *httpFault `json:"http"`
		Dispatch *struct {
			repetition `json:",embed"`
			Bot        string `json:"bot"`
			Type       string `json:"type"`
			Lost       bool   `json:"lost"`
			DelayMS    int    `json:"delayMs"`
			Twice      bool   `json:"twice"`
		} `json:"dispatch"`
		Gateway *struct {
			Bot       string `json:"bot"`
			Effect    string `json:"effect"`
			Code      int    `json:"code"`
			Resumable bool   `json:"resumable"`
		} `json:"gateway"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if err := exactlyOne("http, dispatch and gateway", in.HTTP != nil, in.Dispatch != nil, in.Gateway != nil); err != nil {
		return nil, err
	}
	switch {
	case in.HTTP != nil:
		return count{}, in.HTTP.inject(a.srv.FailHTTP)
	case in.Dispatch != nil:
		f := in.Dispatch
		if err := f.check("dispatch"); err != nil {
			return nil, err
		}
		d, err := milliseconds("dispatch.delayMs", f.DelayMS)
		if err != nil {
			return nil, err
		}
		a.srv.FailDispatch(discord.DispatchFault{
			BotID: f.Bot, Type: f.Type, Skip: f.Skip, Times: f.Times, Lost: f.Lost, Delay: d, Twice: f.Twice,
		})
	default:
		return a.faultGateway(in.Gateway.Bot, in.Gateway.Effect, in.Gateway.Code, in.Gateway.Resumable)
	}
	return count{}, nil
}

func (a discordAPI) faultGateway(bot, effect string, code int, resumable bool) (any, error) {
	switch effect {
	case "drop":
		return count{a.srv.DropGateway(bot)}, nil
	case "reconnect":
		return count{a.srv.ReconnectGateway(bot)}, nil
	case "invalidate":
		return count{a.srv.InvalidateSessions(bot, resumable)}, nil
	case "forget":
		return count{a.srv.ForgetSessions(bot)}, nil
	case "stop-acks":
		return count{a.srv.StopACKs(bot)}, nil
	case "heartbeat":
		return count{a.srv.RequestHeartbeat(bot)}, nil
	case "close":
		if err := closeCode("gateway.code", code); err != nil {
			return nil, err
		}
		return count{a.srv.CloseGateway(bot, code)}, nil
	}
	return nil, invalid("gateway.effect", "%q is not drop, reconnect, invalidate, forget, stop-acks, heartbeat or close", effect)
}
