package discord

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Bans and time-outs: https://discord.com/developers/docs/resources/guild#create-guild-ban and
// https://discord.com/developers/docs/resources/guild#modify-guild-member

// Ban keeps a user out of a guild.
type Ban struct {
	GuildID string
	User    User
	Reason  string
	// ByID is the moderator; empty for the Ban method.
	ByID string
	At   time.Time
}

// TimeOut keeps a member from talking until a time.
type TimeOut struct {
	GuildID string
	User    User
	Until   time.Time
}

// Ban bans a user, member or not. The owner cannot be banned.
func (s *Server) Ban(guildID, userID, reason string) error {
	s.lock()
	defer s.unlock()
	g, err := s.guild(guildID)
	if err != nil {
		return err
	}
	u, err := s.account(userID)
	if err != nil {
		return err
	}
	if g.OwnerID == u.ID {
		return fmt.Errorf("discord: %s owns guild %s", u.Name, g.ID)
	}
	s.ban(g, u, &Ban{Reason: reason}, 0)
	return nil
}

// Unban ends a ban, and reports whether the user was banned.
func (s *Server) Unban(guildID, userID string) bool {
	s.lock()
	defer s.unlock()
	g := s.guilds[guildID]
	if g == nil || g.bans[userID] == nil {
		return false
	}
	s.unban(g, s.users[userID])
	return true
}

// ban bans a user unless already banned, and deletes the user's recent messages in the guild.
func (s *Server) ban(g *guild, u *account, b *Ban, messages time.Duration) {
	if g.bans[u.ID] != nil {
		return
	}
	b.GuildID, b.User, b.At = g.ID, u.User, s.now()
	g.bans[u.ID] = b
	if m := g.members[u.ID]; m != nil {
		s.leave(m)
	}
	s.dispatchBan("GUILD_BAN_ADD", g, u)
	for _, c := range g.channels {
		var gone []*message
		for _, m := range c.messages {
			if m.author == u && !m.Deleted && messages > 0 && b.At.Sub(m.At) <= messages {
				gone = append(gone, m)
			}
		}
		s.remove(gone, true)
	}
}

func (s *Server) unban(g *guild, u *account) {
	delete(g.bans, u.ID)
	s.dispatchBan("GUILD_BAN_REMOVE", g, u)
}

// dispatchBan sends an event about a ban to the bots with the permission.
func (s *Server) dispatchBan(kind string, g *guild, u *account) {
	s.dispatch(kind, func(ss *session) any {
		if !ss.has(IntentGuildModeration, g) || s.permissions(g.members[ss.bot.ID])&(BanMembers|ViewAuditLog) == 0 {
			return nil
		}
		return map[string]any{"guild_id": g.ID, "user": u.json()}
	})
}

// TimeOut times out a member for d; 0 ends the time-out.
func (s *Server) TimeOut(guildID, userID string, d time.Duration) error {
	return s.changeMember(guildID, userID, func(m *member) error {
		m.until = time.Time{}
		if d > 0 {
			m.until = s.now().Add(d)
		}
		return nil
	})
}

// Bans returns the bans of a guild, oldest account first.
func (s *Server) Bans(guildID string) []Ban {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Ban
	if g := s.guilds[guildID]; g != nil {
		for _, id := range slices.SortedFunc(maps.Keys(g.bans), older) {
			all = append(all, *g.bans[id])
		}
	}
	return all
}

// TimeOuts returns the active time-outs of a guild, oldest account first.
func (s *Server) TimeOuts(guildID string) []TimeOut {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []TimeOut
	if g := s.guilds[guildID]; g != nil {
		for _, m := range g.ordered() {
			if s.now().Before(m.until) {
				all = append(all, TimeOut{g.ID, m.user.User, m.until})
			}
		}
	}
	return all
}
