package discord

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"

	"parley.internal/emulator/fake"
)

// User is an account of a person or a bot. https://discord.com/developers/docs/resources/user#user-object
type User struct {
	// ID is a snowflake. AddUser and AddBot fill in an empty ID.
	ID string
	// Name is the username, 1 to 32 characters, unique among people.
	Name string
	// GlobalName is the display name, or empty.
	GlobalName string
	// Bot is set by AddBot.
	Bot bool
}

// Bot is the account of an app.
type Bot struct {
	User
	// Token logs in. AddBot fills in an empty Token.
	Token string
	// Privileged holds the app's enabled privileged intents: IntentGuildMembers, IntentGuildPresences and
	// IntentMessageContent. The gateway refuses other privileged intents with 4014.
	Privileged Intents
}

// account holds a user and the user's data.
type account struct {
	User
	token      string
	privileged Intents
	closed     bool // refuses direct messages

	identifies, starts fake.History
	nonces             map[string]nonceEntry
}

// AddUser makes a user. If the id exists, or a person has the name, the existing user gets the new names.
func (s *Server) AddUser(u User) (User, error) {
	u.Bot = false
	s.lock()
	defer s.unlock()
	a, err := s.add(u)
	if err != nil {
		return User{}, err
	}
	return a.User, nil
}

// AddBot makes a bot, or changes the bot with the same id. An empty token and zero intents keep the old values.
func (s *Server) AddBot(b Bot) (Bot, error) {
	if extra := b.Privileged &^ privilegedIntents; extra != 0 {
		return Bot{}, fmt.Errorf("discord: the intents %#x are not privileged", uint64(extra))
	}
	b.User.Bot = true
	s.lock()
	defer s.unlock()
	if other := s.tokens[b.Token]; b.Token != "" && other != nil && other.ID != b.ID {
		return Bot{}, fmt.Errorf("discord: the token is %s's", other.Name)
	}
	a, err := s.add(b.User)
	if err != nil {
		return Bot{}, err
	}
	s.setToken(a, cmp.Or(b.Token, a.token, newToken(a.ID)))
	a.privileged = cmp.Or(b.Privileged, a.privileged)
	return Bot{User: a.User, Token: a.token, Privileged: a.privileged}, nil
}

// ResetToken gives a bot a new token, ends its sessions like Discord, and returns the token.
func (s *Server) ResetToken(botID string) (string, error) {
	s.lock()
	defer s.unlock()
	a := s.users[botID]
	if a == nil || !a.Bot {
		return "", fmt.Errorf("discord: there is no bot %q", botID)
	}
	s.resetToken(a)
	return a.token, nil
}

func (s *Server) resetToken(a *account) {
	s.setToken(a, newToken(a.ID))
	for _, ss := range s.sessions {
		if ss.bot == a {
			s.end(ss)
			if ss.conn != nil {
				ss.conn.Close(CloseAuthenticationFailed)
			}
		}
	}
}

func (s *Server) setToken(a *account, token string) {
	delete(s.tokens, a.token)
	a.token = token
	s.tokens[token] = a
}

func newToken(id string) string {
	return base64.RawStdEncoding.EncodeToString([]byte(id)) + "." + fake.Secret(3) + "." + fake.Secret(19)
}

// add makes or changes an account.
func (s *Server) add(u User) (*account, error) {
	if n := utf8.RuneCountInString(u.Name); n < 1 || n > 32 {
		return nil, fmt.Errorf("discord: the name %q has %d characters, not 1 to 32", u.Name, n)
	}
	if utf8.RuneCountInString(u.GlobalName) > 32 {
		return nil, fmt.Errorf("discord: the display name %q has more than 32 characters", u.GlobalName)
	}
	if u.ID != "" {
		if _, err := snowflake(u.ID); err != nil {
			return nil, fmt.Errorf("discord: user %s: %w", u.Name, err)
		}
	}
	for _, a := range s.users {
		if a.Name != u.Name || a.Bot || u.Bot {
			continue
		}
		if u.ID != "" && u.ID != a.ID {
			return nil, fmt.Errorf("discord: the name %s is that of user %s, not %s", u.Name, a.ID, u.ID)
		}
		u.ID = a.ID
	}
	if a := s.users[u.ID]; a != nil {
		if a.Bot != u.Bot {
			return nil, fmt.Errorf("discord: the id %s is %s's", u.ID, a.Name)
		}
		a.User = u
		return a, nil
	}
	u.ID = cmp.Or(u.ID, s.newID())
	a := &account{User: u, nonces: map[string]nonceEntry{}}
	s.users[u.ID] = a
	return a, nil
}

// User returns the user with this id.
func (s *Server) User(id string) (User, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.users[id]
	if a == nil {
		return User{}, false
	}
	return a.User, true
}

// Users returns all users, bots included, oldest first.
func (s *Server) Users() []User {
	s.mu.Lock()
	defer s.mu.Unlock()
	var users []User
	for _, id := range slices.SortedFunc(maps.Keys(s.users), older) {
		users = append(users, s.users[id].User)
	}
	return users
}

// BlockDM sets whether a user refuses direct messages from bots. A refused bot gets error 50007.
func (s *Server) BlockDM(userID string, blocked bool) error {
	s.lock()
	defer s.unlock()
	a, err := s.account(userID)
	if err != nil {
		return err
	}
	a.closed = blocked
	return nil
}

func (s *Server) account(id string) (*account, error) {
	a := s.users[id]
	if a == nil {
		return nil, fmt.Errorf("discord: there is no user %q", id)
	}
	return a, nil
}

func (a *account) json() map[string]any {
	u := map[string]any{
		"id":            a.ID,
		"username":      a.Name,
		"discriminator": "0",
		"global_name":   nullable(a.GlobalName),
		"avatar":        nil,
		"public_flags":  0,
	}
	if a.Bot {
		u["bot"] = true
		u["discriminator"] = "0001"
	}
	return u
}

func nullable(text string) any {
	if text == "" {
		return nil
	}
	return text
}
