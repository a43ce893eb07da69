package twitch

import (
	"strconv"
	"time"
)

// Action is an action of a moderator.
type Action struct {
	// Kind is one of the Action constants.
	Kind string
	// By is the moderator's login; empty for the broadcaster's action through a method of Server.
	By string
	// Login is the affected user.
	Login string
	// MessageID is the deleted line.
	MessageID string
	// Duration is the length of a time-out.
	Duration time.Duration
	Reason   string
	At       time.Time
}

// Values of Action.Kind.
const (
	ActionBan     = "ban"
	ActionTimeout = "timeout"
	ActionUnban   = "unban"
	ActionDelete  = "delete"
	ActionClear   = "clear"
)

// ban ends at until; a zero until means never.
type ban struct {
	until, since time.Time
	by           string
	reason       string
}

// Actions returns the actions of the channel's moderators, in order.
func (s *Server) Actions(channel string) []Action {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, err := s.account(channel)
	if err != nil {
		return nil
	}
	return append([]Action(nil), a.room.actions...)
}

// Ban bans a user from a channel, for the duration d or for ever if d is 0. The channel's connections get a message.
func (s *Server) Ban(channel, login string, d time.Duration, reason string) error {
	s.lock()
	defer s.unlock()
	r, u, err := s.roomAndAccount(channel, login)
	if err != nil {
		return err
	}
	s.ban(r, nil, u, d, reason)
	return nil
}

// Unban ends a ban or a time-out.
func (s *Server) Unban(channel, login string) error {
	s.lock()
	defer s.unlock()
	r, u, err := s.roomAndAccount(channel, login)
	if err != nil {
		return err
	}
	s.unban(r, nil, u)
	return nil
}

// Delete deletes a line of the channel, and reports whether the line existed.
func (s *Server) Delete(channel, messageID string) bool {
	s.lock()
	defer s.unlock()
	a, err := s.account(channel)
	if err != nil || a.room.byID[messageID] == nil {
		return false
	}
	s.deleteLine(&a.room, nil, a.room.byID[messageID])
	return true
}

// Clear deletes all lines of the channel.
func (s *Server) Clear(channel string) error {
	s.lock()
	defer s.unlock()
	a, err := s.account(channel)
	if err != nil {
		return err
	}
	s.clear(&a.room, nil)
	return nil
}

func (s *Server) recordAction(r *room, by *account, a Action) {
	if by != nil {
		a.By = by.Login
	}
	a.At = s.now()
	r.actions = append(r.actions, a)
}

func (s *Server) ban(r *room, by, u *account, d time.Duration, reason string) ban {
	now := s.now()
	b := ban{since: now, reason: reason, by: r.owner.ID}
	if by != nil {
		b.by = by.ID
	}
	kind := ActionBan
	t := tags{"room-id": r.owner.ID, "target-user-id": u.ID, "tmi-sent-ts": millis(now)}
	if d > 0 {
		kind, b.until = ActionTimeout, now.Add(d)
		t["ban-duration"] = strconv.Itoa(int(d / time.Second))
	}
	r.bans[u.ID] = b
	for _, l := range r.lines {
		if l.UserID == u.ID {
			l.Deleted = true
		}
	}
	r.broadcast(message{tags: t, prefix: host, command: "CLEARCHAT", params: []string{"#" + r.name(), u.Login}})
	s.recordAction(r, by, Action{Kind: kind, Login: u.Login, Duration: d, Reason: reason})
	return b
}

func (s *Server) unban(r *room, by, u *account) {
	delete(r.bans, u.ID)
	s.recordAction(r, by, Action{Kind: ActionUnban, Login: u.Login})
}

// banned returns the active ban or time-out of u, if any.
func (r *room) banned(u *account, now time.Time) (ban, bool) {
	b, ok := r.bans[u.ID]
	return b, ok && (b.until.IsZero() || now.Before(b.until))
}

func (s *Server) deleteLine(r *room, by *account, l *Line) {
	l.Deleted = true
	r.broadcast(message{
		tags:   tags{"login": l.Login, "room-id": r.owner.ID, "target-msg-id": l.ID, "tmi-sent-ts": millis(s.now())},
		prefix: host, command: "CLEARMSG", params: []string{"#" + r.name(), l.Text},
	})
	s.recordAction(r, by, Action{Kind: ActionDelete, Login: l.Login, MessageID: l.ID})
}

func (s *Server) clear(r *room, by *account) {
	for _, l := range r.lines {
		l.Deleted = true
	}
	r.broadcast(message{
		tags:   tags{"room-id": r.owner.ID, "tmi-sent-ts": millis(s.now())},
		prefix: host, command: "CLEARCHAT", params: []string{"#" + r.name()},
	})
	s.recordAction(r, by, Action{Kind: ActionClear})
}

// broadcast sends a message to the channel's connections with the capability twitch.tv/commands.
func (r *room) broadcast(m message) {
	for c := range r.joined {
		if c.commands {
			c.send(m)
		}
	}
}
