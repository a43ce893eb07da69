package twitch

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Line is a chat message in a channel.
type Line struct {
	ID      string
	Channel string // a login
	// UserID, Login and DisplayName describe the author at the time of the message.
	UserID, Login, DisplayName string
	Text                       string
	// Action is set for /me.
	Action bool
	// ReplyTo is the id of the answered line, or empty.
	ReplyTo string
	// Nonce is the client-nonce of a message over IRC.
	Nonce string
	// Via is the transport: ViaIRC, ViaHelix or ViaSay.
	Via string
	At  time.Time
	// Deleted is set when a moderator deletes the line or clears the chat.
	Deleted bool
}

// Values of Line.Via.
const (
	ViaIRC   = "irc"
	ViaHelix = "helix"
	ViaSay   = "say" // the Say method
)

// Settings restricts the users who may chat. https://dev.twitch.tv/docs/api/reference/#get-chat-settings
type Settings struct {
	// Slow is the pause of a viewer between two lines; 0 is off.
	Slow time.Duration
	// FollowersOnly is the required time of following, in minutes. It counts only if FollowersOnlyMode is set, and may
	// then be 0.
	FollowersOnlyMode bool
	FollowersOnly     int
	SubscribersOnly   bool
	EmoteOnly         bool
	// UniqueChat is also called r9k.
	UniqueChat bool
}

// Stream describes a live channel.
type Stream struct {
	ID          string
	Title, Game string
	Viewers     int
	StartedAt   time.Time
}

// room is the channel of an account.
type room struct {
	owner     *account
	roles     map[string]Role      // by user id, like the maps below
	followers map[string]time.Time // time of the follow
	bans      map[string]ban
	last      map[string]lastPost
	spoken    map[string]bool
	lines     []*Line
	byID      map[string]*Line
	unique    map[string]bool // texts posted in unique-chat mode
	refused   []string        // msg-ids of refused lines
	actions   []Action
	joined    map[*ircConn]bool
	settings  Settings
	title     string
	game      string
	stream    *Stream
}

// lastPost is a user's last line in a channel.
type lastPost struct {
	text string
	at   time.Time
}

func newRoom() room {
	return room{
		roles:     map[string]Role{},
		followers: map[string]time.Time{},
		bans:      map[string]ban{},
		last:      map[string]lastPost{},
		spoken:    map[string]bool{},
		byID:      map[string]*Line{},
		unique:    map[string]bool{},
		joined:    map[*ircConn]bool{},
	}
}

func (r *room) name() string { return r.owner.Login }

func (r *room) broadcaster(u *account) bool { return r.owner == u }

// moderates reports whether u is the broadcaster or a moderator.
func (r *room) moderates(u *account) bool {
	return r.broadcaster(u) || r.roles[u.ID].Moderator
}

// privileged reports whether the rules for viewers do not apply to u.
func (r *room) privileged(u *account) bool { return r.moderates(u) || r.roles[u.ID].VIP }

// SetSettings changes a channel's chat settings. For each changed setting, the channel's connections get a ROOMSTATE and a
// NOTICE.
func (s *Server) SetSettings(channel string, settings Settings) error {
	s.lock()
	defer s.unlock()
	a, err := s.account(channel)
	if err != nil {
		return err
	}
	changes := changedSettings(&a.room, a.room.settings, settings)
	a.room.settings = settings
	for c := range a.room.joined {
		if c.commands {
			for _, m := range changes {
				c.send(m)
			}
		}
	}
	return nil
}

// Said returns all lines of the channel, in order.
func (s *Server) Said(channel string) []Line { return s.SaidFrom(channel, 0) }

// SaidFrom returns the lines of the channel after the first n.
func (s *Server) SaidFrom(channel string, n int) []Line {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, err := s.account(channel)
	if err != nil || n >= len(a.room.lines) {
		return nil
	}
	lines := make([]Line, 0, len(a.room.lines)-n)
	for _, l := range a.room.lines[n:] {
		lines = append(lines, *l)
	}
	return lines
}

// maxRefused is the number of refusals that a channel remembers.
const maxRefused = 1000

// Refused returns the msg-ids of the last refused lines of a channel, in order: at most 1,000. Lines of a ChatFault do not
// count.
func (s *Server) Refused(channel string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, err := s.account(channel)
	if err != nil {
		return nil
	}
	return slices.Clone(a.room.refused)
}

// Joined returns the sorted logins of the users in the channel over IRC, anonymous users included, with one entry per
// connection.
func (s *Server) Joined(channel string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, err := s.account(channel)
	if err != nil {
		return nil
	}
	var logins []string
	for c := range a.room.joined {
		logins = append(logins, c.nick)
	}
	slices.Sort(logins)
	return logins
}

// SayOption is an option of Say.
type SayOption func(*post)

// ReplyingTo makes the line an answer to the line with this id.
func ReplyingTo(id string) SayOption { return func(p *post) { p.parent = id } }

// AsAction makes the line a /me.
func AsAction() SayOption { return func(p *post) { p.action = true } }

// WithID sets the line's id, so that a test can repeat an id.
func WithID(id string) SayOption { return func(p *post) { p.id = id } }

// WithTags adds tags to the line's PRIVMSG, and replaces tags of the same names; nil removes a tag. The tags are sent as
// they are: bits or an emote have no other effect, and EventSub does not have them. The names must satisfy IsTag.
func WithTags(tags map[string]*string) SayOption { return func(p *post) { p.tags = tags } }

// AsTyped applies bans, time-outs, limits and settings, as for a person who types into the chat. A refusal becomes an
// error with the msg-id.
func AsTyped() SayOption { return func(p *post) { p.typed = true } }

// Say posts a line as a user and sends the line to every connection in the channel. Limits, bans and settings do not
// apply, unless AsTyped is given.
func (s *Server) Say(channel, login, text string, opts ...SayOption) (Line, error) {
	s.lock()
	defer s.unlock()
	r, u, err := s.roomAndAccount(channel, login)
	if err != nil {
		return Line{}, err
	}
	p := post{room: r, from: u, text: text, via: ViaSay}
	for _, o := range opts {
		o(&p)
	}
	for name := range p.tags {
		if !IsTag(name) {
			return Line{}, fmt.Errorf("twitch: %q is not the name of a tag", name)
		}
	}
	if p.typed {
		if no := s.admit(p); no != nil {
			return Line{}, fmt.Errorf("twitch: %s: %s", no.id, no.text)
		}
	}
	return *s.publish(p), nil
}

// post is a line before publication.
type post struct {
	room   *room
	from   *account
	id     string
	text   string
	action bool
	parent string
	nonce  string
	via    string
	typed  bool
	tags   map[string]*string // as in WithTags
	conn   *ircConn           // sender's connection; nil for other transports
}

// maxText is the largest number of characters in a chat message.
const maxText = 500

// refusal explains why a message is not published: the msg-id of the NOTICE, and its text.
// https://dev.twitch.tv/docs/chat/irc/#notice-message-ids
type refusal struct{ id, text string }

// admit returns nil if p may be published now. It counts the attempt in both cases.
func (s *Server) admit(p post) *refusal {
	no := s.check(p)
	if no != nil {
		r := p.room
		r.refused = append(r.refused[max(0, len(r.refused)-maxRefused+1):], no.id)
	}
	return no
}

func (s *Server) check(p post) *refusal {
	now, r, u := s.now(), p.room, p.from
	if b, ok := r.bans[u.ID]; ok {
		switch left := b.until.Sub(now); {
		case b.until.IsZero():
			return &refusal{"msg_banned", noticeText("msg_banned", r.name())}
		case left > 0:
			return &refusal{"msg_timedout", "You are timed out for " + seconds(left) + " more seconds."}
		}
	}
	limits := s.options.limits
	tooFast := &refusal{"msg_ratelimit", noticeText("msg_ratelimit", r.name())}
	privileged := r.privileged(u)
	if !u.moderatorMessages.Take(now, limits.ModeratorMessages) {
		return tooFast
	}
	if !privileged && !u.messages.Take(now, limits.Messages) {
		return tooFast
	}
	if privileged {
		return nil
	}
	role, settings, last := r.roles[u.ID], r.settings, r.last[u.ID]
	if followed, ok := r.followers[u.ID]; settings.FollowersOnlyMode &&
		(!ok || now.Sub(followed) < time.Duration(settings.FollowersOnly)*time.Minute) {
		if settings.FollowersOnly == 0 {
			return &refusal{"msg_followersonly_zero", "This room is in followers-only mode. Follow " + r.name() + " to join the community!"}
		}
		return &refusal{"msg_followersonly", "This room is in " + strconv.Itoa(settings.FollowersOnly) + " minutes followers-only mode. Follow " + r.name() + " to join the community!"}
	}
	if settings.SubscribersOnly && role.SubscriberMonths == 0 {
		return &refusal{"msg_subsonly", "This room is in subscribers only mode. To talk, purchase a channel subscription at https://www.twitch.tv/products/" + r.name() + "/ticket?ref=subscriber_only_mode_chat"}
	}
	if settings.EmoteOnly {
		// No text is an emote here.
		return &refusal{"msg_emoteonly", "This room is in emote only mode. You can find your currently available emoticons using the smiley in the chat text area."}
	}
	if settings.UniqueChat && r.unique[p.text] {
		return &refusal{"msg_r9k", "This room is in unique-chat mode and the message you attempted to send is not unique."}
	}
	if !last.at.IsZero() {
		since := now.Sub(last.at)
		if w := limits.ChannelMessages; w.N > 0 && since < w.Per/time.Duration(w.N) {
			return tooFast
		}
		if since < settings.Slow {
			return &refusal{"msg_slowmode", "This room is in slow mode and you are sending messages too quickly. You will be able to talk again in " + seconds(settings.Slow-since) + " seconds."}
		}
		if since < 30*time.Second && last.text == p.text {
			return &refusal{"msg_duplicate", noticeText("msg_duplicate", r.name())}
		}
	}
	return nil
}

func seconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}

// publish stores a line, and sends the line to every connection in the channel except the sender's connection.
func (s *Server) publish(p post) *Line {
	r, u := p.room, p.from
	l := &Line{
		ID:          cmp.Or(p.id, newID()),
		Channel:     r.name(),
		UserID:      u.ID,
		Login:       u.Login,
		DisplayName: u.DisplayName,
		Text:        p.text,
		Action:      p.action,
		ReplyTo:     p.parent,
		Nonce:       p.nonce,
		Via:         p.via,
		At:          s.now(),
	}
	first := !r.spoken[u.ID]
	r.spoken[u.ID] = true
	r.last[u.ID] = lastPost{p.text, l.At}
	r.lines = append(r.lines, l)
	r.byID[l.ID] = l
	if r.settings.UniqueChat {
		r.unique[p.text] = true
	}
	m := s.privmsg(r, u, l, first)
	for name, value := range p.tags {
		if value == nil {
			delete(m.tags, name)
		} else {
			m.tags[name] = *value
		}
	}
	var encoded [2]string // without and with tags, encoded once
	for c := range r.joined {
		if c == p.conn {
			continue
		}
		form := &encoded[0]
		if c.tags {
			form = &encoded[1]
		}
		if *form == "" {
			*form = m.encode(c.tags)
		}
		c.Push(*form)
	}
	s.notifyChat(r, u, l)
	return l
}
