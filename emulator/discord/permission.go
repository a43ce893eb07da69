package discord

import "slices"

// Permissions: https://discord.com/developers/docs/topics/permissions

// Permissions are the bits of a role or an overwrite.
type Permissions uint64

// The supported permissions.
const (
	KickMembers        Permissions = 1 << 1
	BanMembers         Permissions = 1 << 2
	Administrator      Permissions = 1 << 3
	ManageChannels     Permissions = 1 << 4
	ManageGuild        Permissions = 1 << 5
	ViewAuditLog       Permissions = 1 << 7
	ViewChannel        Permissions = 1 << 10
	SendMessages       Permissions = 1 << 11
	ManageMessages     Permissions = 1 << 13
	ReadMessageHistory Permissions = 1 << 16
	MentionEveryone    Permissions = 1 << 17
	ManageNicknames    Permissions = 1 << 27
	ManageRoles        Permissions = 1 << 28
	ModerateMembers    Permissions = 1 << 40
)

// DefaultPermissions are the supported permissions of @everyone in a new guild.
const DefaultPermissions = ViewChannel | SendMessages | ReadMessageHistory | MentionEveryone

const allPermissions = ^Permissions(0)

// Overwrite changes the permissions of a role or a member in one channel.
// https://discord.com/developers/docs/resources/channel#overwrite-object
type Overwrite struct {
	// ID is the id of a role (the guild's id for @everyone) or of a user.
	ID          string
	Allow, Deny Permissions
}

// permissions returns the permissions of a member in the guild.
func (s *Server) permissions(m *member) Permissions {
	g := m.guild
	if m.user.ID == g.OwnerID {
		return allPermissions
	}
	p := g.roles[g.ID].Permissions
	for _, id := range m.roles {
		p |= g.roles[id].Permissions
	}
	if p&Administrator != 0 {
		return allPermissions
	}
	return s.timedOut(m, p)
}

// timedOut reduces the permissions of a timed-out member to viewing and reading.
func (s *Server) timedOut(m *member, p Permissions) Permissions {
	if s.now().Before(m.until) {
		return p & (ViewChannel | ReadMessageHistory)
	}
	return p
}

// permissionsIn returns the permissions of a member in a channel of the guild. Without ViewChannel a member has no
// permission in the channel.
func (s *Server) permissionsIn(c *channel, m *member) Permissions {
	p := s.permissions(m)
	if p == allPermissions {
		return p
	}
	var allow, deny Permissions
	for _, o := range c.Overwrites {
		if o.ID == c.GuildID {
			p = p&^o.Deny | o.Allow
		}
		if slices.Contains(m.roles, o.ID) {
			allow, deny = allow|o.Allow, deny|o.Deny
		}
	}
	p = p&^deny | allow
	for _, o := range c.Overwrites {
		if o.ID == m.user.ID {
			p = p&^o.Deny | o.Allow
		}
	}
	p = s.timedOut(m, p)
	if p&ViewChannel == 0 {
		return 0
	}
	if p&SendMessages == 0 {
		p &^= MentionEveryone
	}
	return p
}

// hasPermission reports whether the user has all permissions of p in the channel. The two users of a direct message
// channel have all permissions except managing.
func (s *Server) hasPermission(c *channel, u *account, p Permissions) bool {
	if c.guild == nil {
		return slices.Contains(c.users, u) && p&ManageMessages == 0
	}
	m := c.guild.members[u.ID]
	return m != nil && s.permissionsIn(c, m)&p == p
}

// position returns the position of a member's highest role.
func (m *member) position() int {
	top := 0
	for _, id := range m.roles {
		top = max(top, m.guild.roles[id].Position)
	}
	return top
}

// above reports whether m may moderate other: the highest role of m is above, or m owns the guild. No member is above
// the owner.
func (m *member) above(other *member) bool {
	switch m.guild.OwnerID {
	case other.user.ID:
		return false
	case m.user.ID:
		return true
	}
	return m.position() > other.position()
}
