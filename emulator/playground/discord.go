package playground

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"parley.internal/emulator/discord"
	"parley.internal/shared/identity"
)

type discordPlatform struct{ srv *discord.Server }

func (p discordPlatform) await(ctx context.Context, cond func() bool) error {
	return p.srv.Await(ctx, cond)
}

// Ids of Discord's places.
func discordChannel(id string) string { return "discord/channel/" + id }
func discordDirect(bot string) string { return "discord/direct/" + bot }

const discordModeration = "discord/moderation"

func nameOf(u discord.User) string { return cmp.Or(u.GlobalName, u.Name) }

// users returns all bots and all other users.
func (p discordPlatform) users() (bots, people []discord.User) {
	for _, u := range p.srv.Users() {
		if u.Bot {
			bots = append(bots, u)
		} else {
			people = append(people, u)
		}
	}
	return bots, people
}

func hasMessages(c discord.Channel) bool {
	return c.Type == discord.TextChannel || c.Type == discord.AnnouncementChannel
}

func (p discordPlatform) state() Platform {
	state := Platform{ID: identity.Discord, Name: "Discord", Places: []Place{}}
	bots, people := p.users()
	members := p.members()
	for _, g := range p.srv.Guilds() {
		speakers, there := p.guild(g)
		for _, c := range p.srv.Channels(g.ID) {
			if hasMessages(c) {
				state.Places = append(state.Places, Place{
					ID: discordChannel(c.ID), Kind: Channel, Name: g.Name + " #" + c.Name,
					Messages: "discord/guilds/" + g.ID + "/channels/" + c.ID + "/messages",
					Speakers: speakers, Bots: there,
				})
			}
		}
	}
	for _, b := range bots {
		place := Place{
			ID: discordDirect(b.ID), Kind: Direct, Name: "Direct messages with " + nameOf(b),
			Messages: "discord/dms/{user}/" + b.ID + "/messages", Speakers: []Speaker{}, Bots: p.connected(b),
		}
		for _, u := range people {
			if shareGuild(members, u.ID, b.ID) {
				place.Speakers = append(place.Speakers, Speaker{ID: u.ID, Name: nameOf(u)})
			}
		}
		state.Places = append(state.Places, place)
	}
	state.Places = append(state.Places, Place{
		ID: discordModeration, Kind: Moderation, Name: "Moderation", Speakers: []Speaker{}, Bots: []string{},
	})
	return state
}

// connected returns the bot's name if the bot is connected.
func (p discordPlatform) connected(b discord.User) []string {
	if p.srv.Connected(b.ID) == 0 {
		return []string{}
	}
	return []string{nameOf(b)}
}

// guild returns the possible speakers of a guild, banned users included, and the guild's connected bots.
func (p discordPlatform) guild(g discord.Guild) (speakers []Speaker, bots []string) {
	roles := map[string]string{}
	for _, r := range p.srv.Roles(g.ID) {
		roles[r.ID] = r.Name
	}
	until := map[string]time.Time{}
	for _, t := range p.srv.TimeOuts(g.ID) {
		until[t.User.ID] = t.Until
	}
	speakers, bots = []Speaker{}, []string{}
	for _, m := range p.srv.Members(g.ID) {
		if m.User.Bot {
			bots = append(bots, p.connected(m.User)...)
			continue
		}
		var notes []string
		if m.User.ID == g.OwnerID {
			notes = append(notes, "owner")
		}
		for _, id := range m.Roles {
			notes = append(notes, roles[id])
		}
		if t, ok := until[m.User.ID]; ok {
			notes = append(notes, "timed out until "+t.UTC().Format("15:04:05 UTC"))
		}
		speakers = append(speakers, Speaker{ID: m.User.ID, Name: cmp.Or(m.Nick, nameOf(m.User)), Note: strings.Join(notes, ", ")})
	}
	for _, b := range p.srv.Bans(g.ID) {
		if !b.User.Bot {
			speakers = append(speakers, Speaker{ID: b.User.ID, Name: nameOf(b.User), Note: "banned"})
		}
	}
	return speakers, bots
}

// members returns the user ids of each guild.
func (p discordPlatform) members() []map[string]bool {
	var all []map[string]bool
	for _, g := range p.srv.Guilds() {
		ids := map[string]bool{}
		for _, m := range p.srv.Members(g.ID) {
			ids[m.User.ID] = true
		}
		all = append(all, ids)
	}
	return all
}

// shareGuild reports whether two users share a guild. Otherwise direct messages are impossible.
func shareGuild(guilds []map[string]bool, a, b string) bool {
	return slices.ContainsFunc(guilds, func(ids map[string]bool) bool { return ids[a] && ids[b] })
}

func (p discordPlatform) sources() []source {
	var all []source
	bots, people := p.users()
	for _, g := range p.srv.Guilds() {
		channels := map[string]string{}
		for _, c := range p.srv.Channels(g.ID) {
			channels[c.ID] = c.Name
			if !hasMessages(c) {
				continue
			}
			place := discordChannel(c.ID)
			all = append(all, source{place, func(n int) []Line { return toLines(place, "", p.srv.SaidFrom(c.ID, n)) }})
		}
		all = append(all, source{discordModeration + "/" + g.ID, func(n int) []Line {
			var lines []Line
			for _, e := range after(p.srv.AuditLog(g.ID), n) {
				by, _ := p.srv.User(e.ByID)
				target, known := p.srv.User(e.TargetID)
				whom := nameOf(target)
				if !known {
					whom = "#" + channels[e.TargetID]
				}
				lines = append(lines, Line{
					Place: discordModeration, Name: nameOf(by), Bot: by.Bot, Text: describeAudit(e, whom, g.Name), At: e.At.UnixMilli(),
				})
			}
			return lines
		}})
	}
	for _, b := range bots {
		for _, u := range people {
			place := discordDirect(b.ID)
			all = append(all, source{place + "/" + u.ID, func(n int) []Line {
				said := toLines(place, nameOf(b), after(p.srv.DMs(u.ID, b.ID), n))
				for i := range said {
					if said[i].Bot {
						said[i].To = nameOf(u)
					}
				}
				return said
			}})
		}
	}
	return all
}

func toLines(place, to string, said []discord.Message) []Line {
	all := make([]Line, 0, len(said))
	for _, m := range said {
		via := m.Via
		if via == discord.ViaSay {
			via = ""
		}
		all = append(all, Line{
			Place: place, ID: m.ID, Name: nameOf(m.Author), Bot: m.Author.Bot, To: to, Text: m.Text, About: m.ReplyTo, Via: via,
			At: m.At.UnixMilli(), Edited: !m.EditedAt.IsZero(), Deleted: m.Deleted,
		})
	}
	return all
}

// describeAudit describes an action of a bot.
func describeAudit(e discord.AuditEntry, whom, guild string) string {
	var text string
	switch e.Action {
	case discord.ActionMemberKick:
		text = "kicked " + whom
	case discord.ActionMemberBanAdd:
		text = "banned " + whom
	case discord.ActionMemberBanRemove:
		text = "let " + whom + " in again"
	case discord.ActionMemberUpdate:
		text = "changed " + whom + ", whose name or time-out it is"
	case discord.ActionMemberRoleUpdate:
		text = "changed the roles of " + whom
	case discord.ActionMessageDelete:
		text = "deleted a message of " + whom
	case discord.ActionMessageBulkDelete:
		text = "deleted messages in " + whom
	default:
		text = e.Action + " " + whom
	}
	text += " in " + guild
	if e.Reason != "" {
		text += ": " + e.Reason
	}
	return text
}
