package playground

import (
	"embed"
	"net/http"

	"parley.internal/emulator/discord"
	"parley.internal/emulator/twitch"
	"parley.internal/gateway/page"
	"parley.internal/shared/credential"
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
	// Messages is the path of the place's messages in the API, below /api/. The speaker's id replaces the text {user}. It is
	// empty for a place of the kind Moderation.
	Messages string `json:"messages,omitempty"`
	// Speakers are the people of the place, without bots.
	Speakers []Speaker `json:"speakers"`
	// Bots are the names of the connected bots that receive the lines.
	Bots []string `json:"bots"`
}

// Speaker is a person in a place.
type Speaker struct {
	ID   string `json:"id"` // the user of a message in the API
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

// Playground serves the page. Its methods are safe for concurrent use.
type Playground struct {
	platforms []platform
	handler   http.Handler
	streams   chan struct{} // holds a value for each open event stream
}

// New makes a playground for the fakes; either fake may be nil. The page and the API need the token. Without a token,
// every request of them is refused. bots lists the identities of bots: the page highlights their lines, offers whispers to
// them, and does not let a person speak as a bot. Discord's own bots need not be listed.
func New(token credential.Secret, t *twitch.Server, d *discord.Server, bots ...identity.UserID) *Playground {
	s := &Playground{streams: make(chan struct{}, maxStreams)}
	if t != nil {
		s.platforms = append(s.platforms, newTwitchPlatform(t, bots))
	}
	if d != nil {
		s.platforms = append(s.platforms, discordPlatform{d})
	}
	mux := http.NewServeMux()
	mux.Handle("GET /events", requireToken(http.HandlerFunc(s.events), token))
	mux.Handle("/api/", requireToken(newAPI(t, d), token))
	mux.Handle("GET /{$}", page.Serve(files))
	mux.Handle("GET /{file}", page.Serve(files))
	s.handler = localOnly(mux)
	return s
}

// ServeHTTP serves the paths of the package comment. A request for events ends with its context, or when a fake closes.
// A server that waits for open requests must first close the fakes or end the requests' contexts.
func (s *Playground) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// platform is the playground's view of a fake.
type platform interface {
	// state returns the current state of the platform.
	state() Platform
	// sources returns the sources of lines in the order of the places. A source keeps its key.
	sources() []source
	// await is the Await method of the fake.
	waiter
}
