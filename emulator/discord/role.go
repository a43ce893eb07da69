package discord

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// Role is a role in a guild. The role with the guild's id is @everyone: every member has the role, and no list of roles
// includes it. https://discord.com/developers/docs/topics/permissions#role-object
type Role struct {
	// ID is a snowflake. AddRole fills in an empty ID.
	ID      string
	GuildID string
	Name    string
	// Position is the rank in the hierarchy; the highest position is the most powerful, and @everyone has 0. If 0,
	// AddRole puts a new role above all others.
	Position    int
	Permissions Permissions
	// Mentionable allows every member to ping the role.
	Mentionable bool
	// BotID is the bot that Discord made the role for, or empty. Discord makes such a role when a bot with permissions
	// joins the guild.
	BotID string
}

// AddRole makes a role, or changes the role with the same id. The id of @everyone is the guild's id.
func (s *Server) AddRole(r Role) (Role, error) {
	if r.Name == "" {
		return Role{}, fmt.Errorf("discord: a role needs a name")
	}
	s.lock()
	defer s.unlock()
	g, err := s.guild(r.GuildID)
	if err != nil {
		return Role{}, err
	}
	if r.ID, err = s.idFor(r.ID, "role "+r.Name); err != nil {
		return Role{}, err
	}
	kind := "GUILD_ROLE_CREATE"
	if old := g.roles[r.ID]; old != nil {
		kind = "GUILD_ROLE_UPDATE"
		r.Position = cmp.Or(r.Position, old.Position)
	}
	if r.ID == g.ID {
		r.Position = 0
	} else if r.Position == 0 {
		for _, other := range g.roles {
			r.Position = max(r.Position, other.Position+1)
		}
	}
	g.roles[r.ID] = &r
	s.dispatch(kind, func(ss *session) any {
		if !ss.has(IntentGuilds, g) {
			return nil
		}
		return map[string]any{"guild_id": g.ID, "role": r.json()}
	})
	return r, nil
}

// RemoveRole removes a role from the guild and its members.
func (s *Server) RemoveRole(guildID, roleID string) error {
	s.lock()
	defer s.unlock()
	g, err := s.guild(guildID)
	if err != nil {
		return err
	}
	if roleID == g.ID || g.roles[roleID] == nil {
		return fmt.Errorf("discord: guild %s has no role %q to remove", g.ID, roleID)
	}
	for _, m := range g.members {
		m.roles = slices.DeleteFunc(m.roles, func(id string) bool { return id == roleID })
	}
	delete(g.roles, roleID)
	s.dispatch("GUILD_ROLE_DELETE", func(ss *session) any {
		if !ss.has(IntentGuilds, g) {
			return nil
		}
		return map[string]any{"guild_id": g.ID, "role_id": roleID}
	})
	return nil
}

// roleList checks role ids and removes repetitions and @everyone.
func (g *guild) roleList(ids []string) ([]string, error) {
	roles := []string{}
	for _, id := range ids {
		if g.roles[id] == nil {
			return nil, fmt.Errorf("discord: guild %s has no role %q", g.ID, id)
		}
		if id != g.ID && !slices.Contains(roles, id) {
			roles = append(roles, id)
		}
	}
	return roles, nil
}

// Roles returns the roles of a guild, highest first.
func (s *Server) Roles(guildID string) []Role {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Role
	if g := s.guilds[guildID]; g != nil {
		for _, r := range g.ranked() {
			all = append(all, *r)
		}
	}
	return all
}

func (g *guild) ranked() []*Role {
	return slices.SortedFunc(maps.Values(g.roles), func(a, b *Role) int {
		return cmp.Or(b.Position-a.Position, older(a.ID, b.ID))
	})
}

func (r *Role) json() map[string]any {
	j := map[string]any{
		"id":          r.ID,
		"name":        r.Name,
		"color":       0,
		"hoist":       false,
		"position":    r.Position,
		"permissions": strconv.FormatUint(uint64(r.Permissions), 10),
		"managed":     r.BotID != "",
		"mentionable": r.Mentionable,
		"flags":       0,
	}
	if r.BotID != "" {
		j["tags"] = map[string]any{"bot_id": r.BotID}
	}
	return j
}
