// Package playground is a page beside the chat page of an emulator, on which a person speaks as a user of the stand-ins for
// Twitch and Discord, in their channels and to the bot alone, and sees what each platform received: every line with who
// said it, and what moderators did.
//
//	GET  /        the page and its files
//	GET  /state   {"platforms": [Platform…]}
//	GET  /events  Server-Sent Events: "platform" with a Platform, at first and whenever it changed, and "lines" with
//	              [Line…], what was said before and then what is said
//	POST /say     a Message; answered with {"id"} of what was said, or with {"error": {"field", "message"}}
//
// Addresses in the page are relative: under a prefix, strip it and keep its last slash.
//
// It talks to the stand-ins' Go methods and opens no connection. Whoever reaches it may speak as anybody: it is for a
// listener of the loopback interface. Pages of other origins can't use it, not even under a name that leads here.
package playground

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"parley.internal/emulator/discord"
	"parley.internal/emulator/twitch"
	"parley.internal/gateway/page"
	"parley.internal/shared/identity"
)

//go:embed index.html playground.css playground.js
var files embed.FS

// Platform is one of the stand-ins, as the page shows it.
type Platform struct {
	ID     identity.Platform `json:"id"`
	Name   string            `json:"name"`
	Places []Place           `json:"places"`
}

// Kind says what a Place is.
type Kind string

// The kinds of places.
const (
	Channel    Kind = "channel"
	Direct     Kind = "direct"     // whispers or direct messages with a bot
	Moderation Kind = "moderation" // what moderators did, at Discord those that are bots; nobody speaks there
)

// Place is where lines are.
type Place struct {
	ID   string `json:"id"` // that of the page alone
	Kind Kind   `json:"kind"`
	Name string `json:"name"`
	// Channel and To are those of a Message that goes here.
	Channel string `json:"channel,omitempty"`
	To      string `json:"to,omitempty"`
	// Speakers are the people who may be spoken as, without bots.
	Speakers []Speaker `json:"speakers"`
	// Bots are the names of the bots that are connected and hear what is said.
	Bots []string `json:"bots"`
}

// Speaker is a person in a place.
type Speaker struct {
	ID   string `json:"id"` // the User of a Message
	Name string `json:"name"`
	// Note is what matters about the person there: roles, a ban, a time-out.
	Note string `json:"note,omitempty"`
}

// Line is something that was said or done.
type Line struct {
	// Key names the line on the page. A line that comes again with its key replaces what was there.
	Key   string `json:"key"`
	Place string `json:"place"`
	ID    string `json:"id,omitempty"` // the platform's
	// Name is who said or did it, and Bot whether that is a bot.
	Name string `json:"name"`
	Bot  bool   `json:"bot,omitempty"`
	// To is the name of whom a whisper or direct message is for.
	To   string `json:"to,omitempty"`
	Text string `json:"text"`
	// About is the id of the line that this one answers, or that a moderator deleted.
	About string `json:"about,omitempty"`
	// Via is how a bot's line came, such as "helix".
	Via string `json:"via,omitempty"`
	// At is when, in milliseconds since 1970.
	At      int64 `json:"at"`
	Action  bool  `json:"action,omitempty"` // a /me
	Edited  bool  `json:"edited,omitempty"`
	Deleted bool  `json:"deleted,omitempty"`
}

// Message is something that a person says.
type Message struct {
	Platform identity.Platform `json:"platform"`
	// User is who says it: a login at Twitch, an id at Discord, as are all people here.
	User string `json:"user"`
	// Channel is where: a login at Twitch, a channel's id at Discord. Without it, the message goes to the bot To alone.
	Channel string `json:"channel"`
	To      string `json:"to"`
	Text    string `json:"text"`
	// ReplyTo is the id of the line in the channel that it answers, if it answers one.
	ReplyTo string `json:"replyTo"`
}

// Playground serves the page. Its methods may be called from any goroutine.
type Playground struct {
	platforms []platform
	handler   http.Handler
	streams   chan struct{} // holds one of each request for events
}

// New makes a stage on the stand-ins, of which either may be nil. bots are the identities that are bots: nobody speaks as
// one, its lines stand out, and it can be whispered to. What is a bot to Discord is one without being named.
func New(t *twitch.Server, d *discord.Server, bots ...identity.UserID) *Playground {
	s := &Playground{streams: make(chan struct{}, maxStreams)}
	if t != nil {
		s.platforms = append(s.platforms, newTwitchPlatform(t, bots))
	}
	if d != nil {
		s.platforms = append(s.platforms, discordPlatform{d})
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /state", s.state)
	mux.HandleFunc("GET /events", s.events)
	mux.HandleFunc("POST /say", s.say)
	mux.Handle("GET /", page.Serve(files))
	s.handler = localOnly(mux)
	return s
}

// ServeHTTP answers what the package says. A request for events ends with its context, or when a stand-in closes: a
// server that waits for its requests closes the stand-ins first, or ends their context.
func (s *Playground) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// platform is what the stage needs of a stand-in.
type platform interface {
	id() identity.Platform
	// state is the platform as it is now.
	state() Platform
	// sources are where lines come from, in the order of the places. One keeps its key.
	sources() []source
	// say makes a person say m, whose text is not empty. The error is a *refusal.
	say(m Message) (id string, err error)
	// await is that of the stand-in.
	waiter
}

// refusal is why a message was not said.
type refusal struct {
	status  int
	Field   string `json:"field"`
	Message string `json:"message"`
}

func (r *refusal) Error() string { return r.Field + ": " + r.Message }

func refuse(status int, field, format string, args ...any) *refusal {
	return &refusal{status, field, fmt.Sprintf(format, args...)}
}

// refused is what the stand-in itself said no to.
func refused(prefix string, err error) *refusal {
	return refuse(http.StatusUnprocessableEntity, "text", "%s", strings.TrimPrefix(err.Error(), prefix))
}

// localOnly keeps pages of other origins out: by what browsers tell of a request
// (https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/Sec-Fetch-Site), and, because a page can let its own
// name lead to this machine and then is of the same origin, by answering to addresses and localhost alone.
func localOnly(h http.Handler) http.Handler {
	origins := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isLocal(r.Host) {
			writeRefusal(w, refuse(http.StatusForbidden, "Host", "use an address or localhost, not %q", r.Host))
			return
		}
		if err := origins.Check(r); err != nil {
			writeRefusal(w, refuse(http.StatusForbidden, "Origin", "%v", err))
			return
		}
		h.ServeHTTP(w, r)
	})
}

func isLocal(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil || host == "localhost" || strings.HasSuffix(host, ".localhost")
}

func (s *Playground) state(w http.ResponseWriter, _ *http.Request) {
	all := []Platform{}
	for _, p := range s.platforms {
		all = append(all, p.state())
	}
	writeJSON(w, http.StatusOK, map[string]any{"platforms": all})
}

// maxBody is how many bytes a Message may have in JSON: the longest text, all of it escaped, and the rest.
const maxBody = 64 << 10

func (s *Playground) say(w http.ResponseWriter, r *http.Request) {
	m, err := read(w, r)
	if err == nil {
		var id string
		if id, err = s.sayTo(m); err == nil {
			writeJSON(w, http.StatusOK, map[string]string{"id": id})
			return
		}
	}
	var no *refusal
	if !errors.As(err, &no) {
		no = refuse(http.StatusInternalServerError, "", "%v", err)
	}
	writeRefusal(w, no)
}

func read(w http.ResponseWriter, r *http.Request) (Message, error) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return Message{}, refuse(http.StatusUnsupportedMediaType, "Content-Type", "must be application/json")
	}
	in := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	in.DisallowUnknownFields()
	var m Message
	err := in.Decode(&m)
	if err == nil {
		if _, err = in.Token(); errors.Is(err, io.EOF) {
			return m, nil
		}
		err = errors.New("there is something after the object")
	}
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return Message{}, refuse(http.StatusRequestEntityTooLarge, "body", "is longer than %d bytes", large.Limit)
	}
	return Message{}, refuse(http.StatusBadRequest, "body", "is not a message: %v", err)
}

func (s *Playground) sayTo(m Message) (string, error) {
	if cleanText(m.Text, "") == "" {
		return "", refuse(http.StatusBadRequest, "text", "it is empty")
	}
	if (m.Channel == "") == (m.To == "") {
		return "", refuse(http.StatusBadRequest, "channel", "say either the channel or, in to, the bot")
	}
	for _, p := range s.platforms {
		if p.id() == m.Platform {
			return p.say(m)
		}
	}
	return "", refuse(http.StatusNotFound, "platform", "there is no %q here", m.Platform)
}

// tooLong is the error of a text that has more characters than the platform takes.
func tooLong(text string, most int, where string) error {
	if n := utf8.RuneCountInString(text); n > most {
		return refuse(http.StatusUnprocessableEntity, "text", "it has %d characters; %s takes %d", n, where, most)
	}
	return nil
}

// cleanText is a text without control characters but for those of keep, each of which becomes a space.
func cleanText(text, keep string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && !strings.ContainsRune(keep, r) {
			return ' '
		}
		return r
	}, text))
}

func writeRefusal(w http.ResponseWriter, no *refusal) {
	writeJSON(w, no.status, map[string]any{"error": no})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	// A client that is gone is no error of ours.
	_ = json.NewEncoder(w).Encode(v)
}
