package playground

import (
	"net/http"
	"slices"
	"time"

	"parley.internal/emulator/discord"
)

// discordAPI serves the part of the API for Discord. The types of bodies are described in the package comment.
type discordAPI struct{ srv *discord.Server }

func (a discordAPI) routes() []route {
	const guild, channel, dm = "/api/discord/guilds/{guild}", "/api/discord/guilds/{guild}/channels/{channel}", "/api/discord/dms/{user}/{bot}"
	all := []route{
		{"GET /api/discord/users", pages, a.users},
		{"PUT /api/discord/users/{user}", "", a.putUser},
		{"GET /api/discord/guilds", pages, a.guilds},
		{"GET " + guild + "/channels", pages, a.channels},
		{"GET " + guild + "/roles", pages, a.roles},
		{"PUT " + guild + "/roles/{role}", "", a.putRole},
		{"GET " + guild + "/members", pages, a.members},
		{"PUT " + guild + "/members/{user}", "", a.putMember},
		{"DELETE " + guild + "/members/{user}", "", a.removeMember},
		{"GET " + guild + "/actions", growing, a.actions},
		{"PUT " + guild + "/bans/{user}", "", a.ban},
		{"DELETE " + guild + "/bans/{user}", "", a.unban},
		{"PUT " + guild + "/timeouts/{user}", "", a.timeOut},
		{"DELETE " + guild + "/timeouts/{user}", "", a.endTimeOut},
		{"POST /api/discord/faults", "", a.fault},
		{"DELETE /api/discord/faults", "", func(*http.Request) (any, error) { a.srv.ClearFaults(); return nil, nil }},
	}
	for _, place := range []struct {
		path string
		find func(*http.Request) (discord.Channel, error)
	}{{channel, a.channel}, {dm, a.dm}} {
		all = append(all,
			route{"GET " + place.path + "/messages", messages, in(place.find, a.messages)},
			route{"POST " + place.path + "/messages", "", in(place.find, a.say)},
			route{"PATCH " + place.path + "/messages/{id}", "", in(place.find, a.edit)},
			route{"DELETE " + place.path + "/messages/{id}", "", in(place.find, a.delete)},
			route{"POST " + place.path + "/messages/bulk-delete", "", in(place.find, a.bulkDelete)},
		)
	}
	return all
}

// in calls serve with the channel of the path.
func in(find func(*http.Request) (discord.Channel, error), serve func(*http.Request, discord.Channel) (any, error)) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		c, err := find(r)
		if err != nil {
			return nil, err
		}
		return serve(r, c)
	}
}

func (a discordAPI) guild(r *http.Request) (discord.Guild, error) {
	for _, g := range a.srv.Guilds() {
		if g.ID == r.PathValue("guild") {
			return g, nil
		}
	}
	return discord.Guild{}, refuse(http.StatusNotFound, "guild", "there is no guild %q", r.PathValue("guild"))
}

func (a discordAPI) channel(r *http.Request) (discord.Channel, error) {
	g, err := a.guild(r)
	if err != nil {
		return discord.Channel{}, err
	}
	for _, c := range a.srv.Channels(g.ID) {
		if c.ID == r.PathValue("channel") && hasMessages(c) {
			return c, nil
		}
	}
	return discord.Channel{}, refuse(http.StatusNotFound, "channel", "guild %s has no channel %q with messages", g.ID, r.PathValue("channel"))
}

func (a discordAPI) dm(r *http.Request) (discord.Channel, error) {
	c, err := a.srv.DM(r.PathValue("user"), r.PathValue("bot"))
	if err != nil {
		return c, refuse(http.StatusNotFound, "bot", "%s", refused("", err).Reason)
	}
	return c, nil
}

// user returns the user named by the path.
func (a discordAPI) user(r *http.Request) (discord.User, error) {
	u, ok := a.srv.User(r.PathValue("user"))
	if !ok {
		return u, refuse(http.StatusNotFound, "user", "there is no user %q on Discord", r.PathValue("user"))
	}
	return u, nil
}

// guildAndUser returns the guild and the user named by the path.
func (a discordAPI) guildAndUser(r *http.Request) (g discord.Guild, u discord.User, err error) {
	if g, err = a.guild(r); err == nil {
		u, err = a.user(r)
	}
	return g, u, err
}

type discordUser struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	GlobalName string `json:"globalName"`
	Bot        bool   `json:"bot"`
	// Connections is the number of a bot's sessions with a connection.
	Connections int `json:"connections"`
}

func (a discordAPI) toUser(u discord.User) discordUser {
	to := discordUser{u.ID, u.Name, u.GlobalName, u.Bot, 0}
	if u.Bot {
		to.Connections = a.srv.Connected(u.ID)
	}
	return to
}

func (a discordAPI) users(r *http.Request) (any, error) {
	return list(r, a.srv.Await, func(n int) []discord.User { return after(a.srv.Users(), n) }, all(a.toUser))
}

func (a discordAPI) putUser(r *http.Request) (any, error) {
	var in struct {
		Name       string `json:"name"`
		GlobalName string `json:"globalName"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	id := r.PathValue("user")
	if _, ok := a.srv.User(id); !ok && len(a.srv.Users()) >= maxUsers {
		return nil, invalid("user", "there are already %d users", maxUsers)
	}
	u, err := a.srv.AddUser(discord.User{ID: id, Name: in.Name, GlobalName: in.GlobalName})
	if err != nil {
		return nil, refused("name", err)
	}
	return a.toUser(u), nil
}

func (a discordAPI) guilds(r *http.Request) (any, error) {
	type guild struct {
		ID      string `json:"id"`
		Name    string `json:"name"`
		OwnerID string `json:"ownerId"`
	}
	return list(r, a.srv.Await, func(n int) []discord.Guild { return after(a.srv.Guilds(), n) }, all(func(g discord.Guild) guild { return guild{g.ID, g.Name, g.OwnerID} }))
}

func (a discordAPI) channels(r *http.Request) (any, error) {
	g, err := a.guild(r)
	if err != nil {
		return nil, err
	}
	type channel struct {
		ID   string `json:"id"`
		Name string `json:"name"`
		Type int    `json:"type"`
	}
	return list(r, a.srv.Await, func(n int) []discord.Channel { return after(a.srv.Channels(g.ID), n) }, all(func(c discord.Channel) channel {
		return channel{c.ID, c.Name, int(c.Type)}
	}))
}

type discordRole struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Position    int    `json:"position"`
	Permissions uint64 `json:"permissions,string"`
	Mentionable bool   `json:"mentionable"`
}

func toDiscordRole(role discord.Role) discordRole {
	return discordRole{role.ID, role.Name, role.Position, uint64(role.Permissions), role.Mentionable}
}

func (a discordAPI) roles(r *http.Request) (any, error) {
	g, err := a.guild(r)
	if err != nil {
		return nil, err
	}
	return list(r, a.srv.Await, func(n int) []discord.Role { return after(a.srv.Roles(g.ID), n) }, all(toDiscordRole))
}

// maxRoles bounds the roles of a guild, as on Discord.
const maxRoles = 250

func (a discordAPI) putRole(r *http.Request) (any, error) {
	g, err := a.guild(r)
	if err != nil {
		return nil, err
	}
	var in struct {
		Name        string `json:"name"`
		Position    int    `json:"position"`
		Permissions uint64 `json:"permissions,string"`
		Mentionable bool   `json:"mentionable"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if len(a.srv.Roles(g.ID)) >= maxRoles {
		return nil, invalid("role", "the guild already has %d roles", maxRoles)
	}
	role, err := a.srv.AddRole(discord.Role{
		ID: r.PathValue("role"), GuildID: g.ID, Name: in.Name, Position: in.Position,
		Permissions: discord.Permissions(in.Permissions), Mentionable: in.Mentionable,
	})
	if err != nil {
		return nil, refused("name", err)
	}
	return toDiscordRole(role), nil
}

type discordMember struct {
	User          discordUser `json:"user"`
	Nick          string      `json:"nick"`
	Roles         []string    `json:"roles"`
	TimedOutUntil time.Time   `json:"timedOutUntil,omitzero"`
}

func (a discordAPI) toMember(m discord.Member) discordMember {
	return discordMember{a.toUser(m.User), m.Nick, m.Roles, m.TimedOutUntil}
}

func (a discordAPI) members(r *http.Request) (any, error) {
	g, err := a.guild(r)
	if err != nil {
		return nil, err
	}
	return list(r, a.srv.Await, func(n int) []discord.Member { return after(a.srv.Members(g.ID), n) }, all(a.toMember))
}

func (a discordAPI) putMember(r *http.Request) (any, error) {
	g, u, err := a.guildAndUser(r)
	if err != nil {
		return nil, err
	}
	var in struct {
		Nick  string   `json:"nick"`
		Roles []string `json:"roles"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if err := checkLength("nick", in.Nick, 32); err != nil {
		return nil, err
	}
	if _, err := a.srv.AddMember(g.ID, u.ID, in.Roles...); err != nil {
		return nil, refused("roles", err)
	}
	if err := a.srv.SetNick(g.ID, u.ID, in.Nick); err != nil {
		return nil, refused("nick", err)
	}
	members := a.srv.Members(g.ID)
	at := slices.IndexFunc(members, func(m discord.Member) bool { return m.User.ID == u.ID })
	if at < 0 {
		return nil, refuse(http.StatusNotFound, "user", "%s has left the guild", u.Name)
	}
	return a.toMember(members[at]), nil
}

func (a discordAPI) removeMember(r *http.Request) (any, error) {
	g, u, err := a.guildAndUser(r)
	if err != nil {
		return nil, err
	}
	if err := a.srv.RemoveMember(g.ID, u.ID); err != nil {
		return nil, refused("user", err)
	}
	return nil, nil
}

func (a discordAPI) actions(r *http.Request) (any, error) {
	g, err := a.guild(r)
	if err != nil {
		return nil, err
	}
	type action struct {
		Action   string    `json:"action"`
		ByID     string    `json:"byId"`
		TargetID string    `json:"targetId"`
		Reason   string    `json:"reason"`
		At       time.Time `json:"at"`
	}
	return list(r, a.srv.Await, func(n int) []discord.AuditEntry { return after(a.srv.AuditLog(g.ID), n) }, all(func(e discord.AuditEntry) action {
		return action{e.Action, e.ByID, e.TargetID, e.Reason, e.At}
	}))
}

func (a discordAPI) ban(r *http.Request) (any, error) {
	g, u, err := a.guildAndUser(r)
	if err != nil {
		return nil, err
	}
	var in struct {
		Reason string `json:"reason"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if err := checkLength("reason", in.Reason, 512); err != nil {
		return nil, err
	}
	if err := a.srv.Ban(g.ID, u.ID, in.Reason); err != nil {
		return nil, refused("user", err)
	}
	return nil, nil
}

func (a discordAPI) unban(r *http.Request) (any, error) {
	g, u, err := a.guildAndUser(r)
	if err != nil {
		return nil, err
	}
	if !a.srv.Unban(g.ID, u.ID) {
		return nil, refuse(http.StatusNotFound, "user", "%s is not banned", u.Name)
	}
	return nil, nil
}

// longestTimeOut is the longest time-out on Discord
// (https://discord.com/developers/docs/resources/guild#modify-guild-member).
const longestTimeOut = 28 * 24 * time.Hour

func (a discordAPI) timeOut(r *http.Request) (any, error) {
	g, u, err := a.guildAndUser(r)
	if err != nil {
		return nil, err
	}
	var in struct {
		Seconds int `json:"seconds"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	d, err := seconds("seconds", in.Seconds, longestTimeOut)
	if err != nil {
		return nil, err
	}
	if d == 0 {
		return nil, invalid("seconds", "must be at least 1")
	}
	if err := a.srv.TimeOut(g.ID, u.ID, d); err != nil {
		return nil, refused("user", err)
	}
	return nil, nil
}

func (a discordAPI) endTimeOut(r *http.Request) (any, error) {
	g, u, err := a.guildAndUser(r)
	if err != nil {
		return nil, err
	}
	if err := a.srv.TimeOut(g.ID, u.ID, 0); err != nil {
		return nil, refused("user", err)
	}
	return nil, nil
}
