package discord

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Member is a user in a guild.
// https://discord.com/developers/docs/resources/guild#guild-member-object
type Member struct {
	GuildID string
	User    User
	// Nick is the name in the guild, or empty.
	Nick string
	// Roles are ids, without @everyone.
	Roles    []string
	JoinedAt time.Time
	// TimedOutUntil is zero for a member who never was timed out.
	TimedOutUntil time.Time
}

type member struct {
	guild  *guild
	user   *account
	nick   string
	roles  []string
	joined time.Time
	until  time.Time
}

// AddMember adds a user or a bot to a guild with these roles. An existing member gets the roles. A banned user is
// refused.
func (s *Server) AddMember(guildID, userID string, roleIDs ...string) (Member, error) {
	s.lock()
	defer s.unlock()
	g, err := s.guild(guildID)
	if err != nil {
		return Member{}, err
	}
	u, err := s.account(userID)
	if err != nil {
		return Member{}, err
	}
	if g.bans[u.ID] != nil {
		return Member{}, fmt.Errorf("discord: %s is banned from guild %s", u.Name, g.ID)
	}
	roles, err := g.roleList(roleIDs)
	if err != nil {
		return Member{}, err
	}
	m := g.members[u.ID]
	if m == nil {
		m = s.join(g, u, roles)
	} else {
		m.roles = roles
		s.dispatchMember(m)
	}
	return m.Member(), nil
}

// join makes a user a member. Bots in the guild get an event, and a joining bot gets the guild.
func (s *Server) join(g *guild, u *account, roles []string) *member {
	m := &member{guild: g, user: u, roles: append([]string{}, roles...), joined: s.now()}
	g.members[u.ID] = m
	s.dispatch("GUILD_MEMBER_ADD", func(ss *session) any {
		if !ss.has(IntentGuildMembers, g) || ss.bot == u {
			return nil
		}
		return m.json(g.ID)
	})
	s.dispatch("GUILD_CREATE", func(ss *session) any {
		if ss.bot != u || !ss.has(IntentGuilds, g) {
			return nil
		}
		return s.guildCreate(ss, g)
	})
	return m
}

// RemoveMember removes a member. The owner cannot leave.
func (s *Server) RemoveMember(guildID, userID string) error {
	s.lock()
	defer s.unlock()
	m, err := s.member(guildID, userID)
	if err != nil {
		return err
	}
	if m.guild.OwnerID == userID {
		return fmt.Errorf("discord: the owner can't leave guild %s", guildID)
	}
	s.leave(m)
	return nil
}

func (s *Server) leave(m *member) {
	g := m.guild
	s.dispatch("GUILD_DELETE", func(ss *session) any {
		if ss.bot != m.user || !ss.has(IntentGuilds, g) {
			return nil
		}
		return map[string]any{"id": g.ID}
	})
	delete(g.members, m.user.ID)
	s.dispatch("GUILD_MEMBER_REMOVE", func(ss *session) any {
		if !ss.has(IntentGuildMembers, g) {
			return nil
		}
		return map[string]any{"guild_id": g.ID, "user": m.user.json()}
	})
}

// SetRoles replaces the roles of a member.
func (s *Server) SetRoles(guildID, userID string, roleIDs ...string) error {
	return s.changeMember(guildID, userID, func(m *member) (err error) {
		roles, err := m.guild.roleList(roleIDs)
		if err == nil {
			m.roles = roles
		}
		return err
	})
}

// SetNick sets a member's nickname, or removes it if nick is empty.
func (s *Server) SetNick(guildID, userID, nick string) error {
	return s.changeMember(guildID, userID, func(m *member) error {
		m.nick = nick
		return nil
	})
}

func (s *Server) changeMember(guildID, userID string, change func(*member) error) error {
	s.lock()
	defer s.unlock()
	m, err := s.member(guildID, userID)
	if err != nil {
		return err
	}
	if err := change(m); err != nil {
		return err
	}
	s.dispatchMember(m)
	return nil
}

// dispatchMember sends an update of a member. A bot gets updates of itself without an intent.
func (s *Server) dispatchMember(m *member) {
	s.dispatch("GUILD_MEMBER_UPDATE", func(ss *session) any {
		if !ss.has(IntentGuildMembers, m.guild) && (ss.bot != m.user || !ss.serves(m.guild)) {
			return nil
		}
		return m.json(m.guild.ID)
	})
}

// Members returns the members of a guild, oldest account first.
func (s *Server) Members(guildID string) []Member {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Member
	if g := s.guilds[guildID]; g != nil {
		for _, m := range g.ordered() {
			all = append(all, m.Member())
		}
	}
	return all
}

func (g *guild) ordered() []*member {
	return slices.SortedFunc(maps.Values(g.members), func(a, b *member) int { return older(a.user.ID, b.user.ID) })
}

// Member returns the exported form of m.
func (m *member) Member() Member {
	return Member{
		GuildID:       m.guild.ID,
		User:          m.user.User,
		Nick:          m.nick,
		Roles:         slices.Clone(m.roles),
		JoinedAt:      m.joined,
		TimedOutUntil: m.until,
	}
}

func (s *Server) member(guildID, userID string) (*member, error) {
	g, err := s.guild(guildID)
	if err != nil {
		return nil, err
	}
	m := g.members[userID]
	if m == nil {
		return nil, fmt.Errorf("discord: %q is not a member of guild %s", userID, g.ID)
	}
	return m, nil
}

// json returns the member object, with guild_id if guildID is not empty.
func (m *member) json(guildID string) map[string]any {
	j := m.partial()
	j["user"] = m.user.json()
	if guildID != "" {
		j["guild_id"] = guildID
	}
	return j
}

// partial returns the member object without the user.
func (m *member) partial() map[string]any {
	j := map[string]any{
		"nick":                         nullable(m.nick),
		"avatar":                       nil,
		"roles":                        append([]string{}, m.roles...),
		"joined_at":                    formatTime(m.joined),
		"premium_since":                nil,
		"deaf":                         false,
		"mute":                         false,
		"flags":                        0,
		"pending":                      false,
		"communication_disabled_until": nil,
	}
	if !m.until.IsZero() {
		j["communication_disabled_until"] = formatTime(m.until)
	}
	return j
}
