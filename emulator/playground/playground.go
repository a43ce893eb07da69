// Package playground serves a page next to the emulator's chat page. On the page, a person speaks as any user of the
// fakes of Twitch and Discord, in channels and in private to the bot. The page shows every line received by a platform
// with its author, and the actions of moderators. Start with [New].
//
//	GET  /        the page and its files
//	GET  /state   {"platforms": [Platform…]}
//	GET  /events  Server-Sent Events: "platform" with a Platform, at the start and after every change, and "lines" with
//	              [Line…], the earlier lines at the start and then each new or changed line
//	POST /say     a Message; the answer is {"id"} of the new line, or {"error": {"field", "message"}}
//
// Addresses in the page are relative. To serve the page under a prefix, strip the prefix from the request's path, but
// keep the last slash of the prefix.
//
// The package uses the Go methods of the fakes and opens no connection. Every visitor may speak as any user, so serve
// the page on the loopback interface only. Pages of other origins cannot use the page. Only requests to localhost and to
// loopback addresses are served. Any other host gets 421, even if the host's name resolves to this machine.
package playground

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"parley.internal/emulator/discord"
	"parley.internal/emulator/twitch"
	"parley.internal/gateway/loopback"
	"parley.internal/gateway/page"
	"parley.internal/shared/identity"
)

//go:embed index.html playground.css playground.js
var files embed.FS

// Platform describes a fake for the page.
type Platform struct {
	ID     identity.Platform `json:"id"`
	Name   string            `json:"name"`
	Places []Place           `json:"places"`
}

// Kind is the kind of a Place.
type Kind string

// The kinds of places.
const (
	Channel    Kind = "channel"
	Direct     Kind = "direct"     // whispers, or direct messages with a bot
	Moderation Kind = "moderation" // actions of moderators (on Discord, of bots); the place accepts no messages
)

// Place is a list of lines on the page: a channel, private messages with a bot, or the actions of moderators.
type Place struct {
	ID   string `json:"id"` // known to the page only
	Kind Kind   `json:"kind"`
	Name string `json:"name"`
	// Channel and To are the fields of a Message to this place.
	Channel string `json:"channel,omitempty"`
	To      string `json:"to,omitempty"`
	// Speakers are the people of the place, without bots.
	Speakers []Speaker `json:"speakers"`
	// Bots are the names of the connected bots that receive the lines.
	Bots []string `json:"bots"`
}

// Speaker is a person in a place.
type Speaker struct {
	ID   string `json:"id"` // value for Message.User
	Name string `json:"name"`
	// Note shows the person's roles, ban or time-out.
	Note string `json:"note,omitempty"`
}

// Line is a message or a moderator's action.
type Line struct {
	// Key identifies the line on the page. A later line with the same key replaces the line.
	Key   string `json:"key"`
	Place string `json:"place"`
	ID    string `json:"id,omitempty"` // of the platform
	// Name is the author. Bot is true if the author is a bot.
	Name string `json:"name"`
	Bot  bool   `json:"bot,omitempty"`
	// To is the recipient's name of a whisper or direct message.
	To   string `json:"to,omitempty"`
	Text string `json:"text"`
	// About is the id of the line answered by this line, or deleted by a moderator.
	About string `json:"about,omitempty"`
	// Via is the transport of a bot's line, such as "helix".
	Via string `json:"via,omitempty"`
	// At is the time in milliseconds since 1970.
	At      int64 `json:"at"`
	Action  bool  `json:"action,omitempty"` // a /me
	Edited  bool  `json:"edited,omitempty"`
	Deleted bool  `json:"deleted,omitempty"`
}

// Message is a message from a person.
type Message struct {
	Platform identity.Platform `json:"platform"`
	// User is the author: a login on Twitch, an id on Discord.
	User string `json:"user"`
	// Channel is a login on Twitch, a channel id on Discord. If empty, the message goes to the bot To in private.
	Channel string `json:"channel"`
	To      string `json:"to"`
	Text    string `json:"text"`
	// ReplyTo is the id of the answered line in the channel, or empty.
	ReplyTo string `json:"replyTo"`
}

// Playground serves the page. Its methods are safe for concurrent use.
type Playground struct {
	platforms []platform
	handler   http.Handler
	streams   chan struct{} // holds a value for each open event stream
}

// New makes a playground for the fakes; either fake may be nil. bots lists the identities of bots: a person cannot
// speak as a bot, a bot's lines are highlighted, and a bot receives whispers. Discord's own bots need not be listed.
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

// ServeHTTP serves the paths of the package comment. A request for events ends with its context, or when a fake closes.
// A server that waits for open requests must first close the fakes or end the requests' contexts.
func (s *Playground) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// platform is the playground's view of a fake.
type platform interface {
	id() identity.Platform
	// state returns the current state of the platform.
	state() Platform
	// sources returns the sources of lines in the order of the places. A source keeps its key.
	sources() []source
	// say sends m as a person. The text is not empty. The error is a *refusal.
	say(m Message) (id string, err error)
	// await is the Await method of the fake.
	waiter
}

// refusal explains a refused message.
type refusal struct {
	status  int
	Field   string `json:"field"`
	Message string `json:"message"`
}

func (r *refusal) Error() string { return r.Field + ": " + r.Message }

func refuse(status int, field, format string, args ...any) *refusal {
	return &refusal{status, field, fmt.Sprintf(format, args...)}
}

// refused makes a refusal from a fake's error.
func refused(prefix string, err error) *refusal {
	return refuse(http.StatusUnprocessableEntity, "text", "%s", strings.TrimPrefix(err.Error(), prefix))
}

// localOnly keeps out pages of other origins. Browsers name the origin of a request
// (https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/Sec-Fetch-Site). A foreign page can also resolve its
// own name to this machine and so get the same origin; package loopback refuses such names.
func localOnly(h http.Handler) http.Handler {
	origins := http.NewCrossOriginProtection()
	return loopback.Only(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := origins.Check(r); err != nil {
			writeRefusal(w, refuse(http.StatusForbidden, "Origin", "%v", err))
			return
		}
		h.ServeHTTP(w, r)
	}))
}

func (s *Playground) state(w http.ResponseWriter, _ *http.Request) {
	all := []Platform{}
	for _, p := range s.platforms {
		all = append(all, p.state())
	}
	writeJSON(w, http.StatusOK, map[string]any{"platforms": all})
}

// maxBody bounds a Message in JSON, in bytes: the longest text with every character escaped, and the other fields.
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

// tooLong returns an error if the text exceeds the platform's limit of characters.
func tooLong(text string, most int, where string) error {
	if n := utf8.RuneCountInString(text); n > most {
		return refuse(http.StatusUnprocessableEntity, "text", "it has %d characters; %s takes %d", n, where, most)
	}
	return nil
}

// cleanText replaces control characters by spaces, except the characters of keep, and trims the text.
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
	// A disconnected client is not an error.
	_ = json.NewEncoder(w).Encode(v)
}
