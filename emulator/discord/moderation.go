package discord

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Bans and time-outs, see
// https://discord.com/developers/docs/resources/guild#create-guild-ban and
// https://discord.com/developers/docs/resources/guild#modify-guild-member

// Ban keeps a user out of a guild.
type Ban struct {
	GuildID string
	User    User
	Reason  string
	// ByID is who banned; empty where the Ban method did.
	ByID string
	At   time.Time
}

// TimeOut keeps a member from talking until then.
type TimeOut struct {
	GuildID string
	User    User
	Until   time.Time
}

// AuditEntry is what the audit log of a guild has about something that a bot
// did.
type AuditEntry struct {
	// Action is that of Discord's audit log, such as "MEMBER_BAN_ADD".
	Action string
	// ByID did it to TargetID, a user.
	ByID, TargetID string
	// Reason came in the X-Audit-Log-Reason header.
	Reason string
	At     time.Time
}

// Actions of the audit log.
// https://discord.com/developers/docs/resources/audit-log#audit-log-entry-object-audit-log-events
const (
	ActionMemberKick        = "MEMBER_KICK"
	ActionMemberBanAdd      = "MEMBER_BAN_ADD"
	ActionMemberBanRemove   = "MEMBER_BAN_REMOVE"
	ActionMemberUpdate      = "MEMBER_UPDATE"
	ActionMemberRoleUpdate  = "MEMBER_ROLE_UPDATE"
	ActionMessageDelete     = "MESSAGE_DELETE"
	ActionMessageBulkDelete = "MESSAGE_BULK_DELETE"
)

// Ban bans a user, who need not be a member, and Unban lets one in again. The
// owner can't be banned.
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

// Unban lets a user in again, and reports whether it was banned.
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

// ban takes effect unless there is a ban, and deletes what the user said in the
// guild for as long before.
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

// dispatchBan tells those who may know of bans.
func (s *Server) dispatchBan(kind string, g *guild, u *account) {
	s.dispatch(kind, func(ss *session) any {
		if !ss.has(IntentGuildModeration, g) || s.permissions(g.members[ss.bot.ID])&(BanMembers|ViewAuditLog) == 0 {
			return nil
		}
		return map[string]any{"guild_id": g.ID, "user": u.json()}
	})
}

// TimeOut keeps a member from talking for d; 0 lets it talk again.
func (s *Server) TimeOut(guildID, userID string, d time.Duration) error {
	return s.changeMember(guildID, userID, func(m *member) error {
		m.until = time.Time{}
		if d > 0 {
			m.until = s.now().Add(d)
		}
		return nil
	})
}

// Bans are those of a guild, by the users' age.
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

// TimeOuts are those of a guild's members that last, by the users' age.
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

// AuditLog is what bots did in a guild through the API, in order.
func (s *Server) AuditLog(guildID string) []AuditEntry {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.guilds[guildID]; g != nil {
		return slices.Clone(g.audit)
	}
	return nil
}
