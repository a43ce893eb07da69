package twitch

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"parley.internal/emulator/fake"
)

// User is an account with a channel of the same name.
type User struct {
	// ID is a decimal number. AddUser fills in an empty ID.
	ID string
	// Login is lower case, and also names the channel.
	Login string
	// DisplayName differs from Login only in case, or uses another script. If empty, AddUser uses Login.
	DisplayName string
	// Color has the form #1E90FF; empty if the user never chose a color.
	Color string
	Email string
	// NoPhone marks a user without a verified phone number. Such a user cannot whisper through Helix.
	NoPhone bool
	// NoWhispers marks a user who blocks whispers from strangers.
	NoWhispers bool
	CreatedAt  time.Time
}

// Role is a user's role in a channel. The zero Role is a viewer. The broadcaster needs no Role.
type Role struct {
	Moderator, VIP bool
	// SubscriberMonths is 0 without a subscription.
	SubscriberMonths int
}

// account holds a user, the user's data, and the user's channel.
type account struct {
	User
	room room

	logins, joins               fake.History
	messages, moderatorMessages fake.History
	whispers                    []Whisper               // received
	lastSecond, lastMinute      fake.History            // of whispers sent
	recipients                  map[string]fake.History // by id of the recipient
}

var loginPattern = regexp.MustCompile(`^[a-z0-9_]{1,25}$`)

// AddUser makes a user. If the login exists, the user gets the new display name, color, e-mail address and settings.
func (s *Server) AddUser(u User) (User, error) {
	u.Login = strings.ToLower(u.Login)
	if !loginPattern.MatchString(u.Login) {
		return User{}, fmt.Errorf("twitch: %q is not a login", u.Login)
	}
	if u.ID != "" {
		if _, err := strconv.ParseUint(u.ID, 10, 64); err != nil {
			return User{}, fmt.Errorf("twitch: %q is not a user id: %w", u.ID, err)
		}
	}
	u.DisplayName = cmp.Or(u.DisplayName, u.Login)
	if !strings.EqualFold(u.DisplayName, u.Login) && !strings.ContainsFunc(u.DisplayName, func(r rune) bool { return r > unicode.MaxASCII }) {
		return User{}, fmt.Errorf("twitch: %q is not a display name of %s", u.DisplayName, u.Login)
	}
	s.lock()
	defer s.unlock()
	if a := s.logins[u.Login]; a != nil {
		if u.ID != "" && u.ID != a.ID {
			return User{}, fmt.Errorf("twitch: %s has the id %s, not %s", u.Login, a.ID, u.ID)
		}
		u.ID = a.ID
		u.CreatedAt = cmp.Or(u.CreatedAt, a.CreatedAt)
		a.User = u
		return u, nil
	}
	if u.ID == "" {
		s.lastID++
		for s.users[strconv.Itoa(s.lastID)] != nil {
			s.lastID++
		}
		u.ID = strconv.Itoa(s.lastID)
	}
	if a := s.users[u.ID]; a != nil {
		return User{}, fmt.Errorf("twitch: the id %s is %s's", u.ID, a.Login)
	}
	u.CreatedAt = cmp.Or(u.CreatedAt, s.now())
	a := &account{User: u, room: newRoom(), recipients: map[string]fake.History{}}
	a.room.owner = a
	s.users[u.ID], s.logins[u.Login] = a, a
	return u, nil
}

// User returns the user with this login.
func (s *Server) User(login string) (User, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.logins[strings.ToLower(login)]
	if a == nil {
		return User{}, false
	}
	return a.User, true
}

// Users returns all users, by login.
func (s *Server) Users() []User {
	s.mu.Lock()
	defer s.mu.Unlock()
	var users []User
	for _, login := range slices.Sorted(maps.Keys(s.logins)) {
		users = append(users, s.logins[login].User)
	}
	return users
}

// SetRole sets a user's role in a channel. As on Twitch, the user's IRC connections get the change with the next
// USERSTATE.
func (s *Server) SetRole(channel, login string, role Role) error {
	s.lock()
	defer s.unlock()
	c, u, err := s.roomAndAccount(channel, login)
	if err != nil {
		return err
	}
	c.roles[u.ID] = role
	return nil
}

// roomAndAccount returns a channel and a user by their names.
func (s *Server) roomAndAccount(channel, login string) (*room, *account, error) {
	c, err := s.account(channel)
	if err != nil {
		return nil, nil, err
	}
	u, err := s.account(login)
	if err != nil {
		return nil, nil, err
	}
	return &c.room, u, nil
}

func (s *Server) account(login string) (*account, error) {
	a := s.logins[strings.ToLower(strings.TrimPrefix(login, "#"))]
	if a == nil {
		return nil, fmt.Errorf("twitch: there is no user %q", login)
	}
	return a, nil
}
