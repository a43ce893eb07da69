package twitch

import (
	"cmp"
	"strconv"
	"strings"
)

// Events in channels other than chat, and their messages over EventSub and IRC.
// https://dev.twitch.tv/docs/eventsub/eventsub-reference/#channel-follow-event and following

// userFields returns the three fields of an event for each user.
func userFields(prefix string, u *account) map[string]any {
	return map[string]any{
		prefix + "user_id":    u.ID,
		prefix + "user_login": u.Login,
		prefix + "user_name":  u.DisplayName,
	}
}

func joinFields(parts ...map[string]any) map[string]any {
	all := map[string]any{}
	for _, p := range parts {
		for k, v := range p {
			all[k] = v
		}
	}
	return all
}

// Follow makes a user follow a channel.
func (s *Server) Follow(channel, login string) error {
	s.lock()
	defer s.unlock()
	r, u, err := s.roomAndAccount(channel, login)
	if err != nil {
		return err
	}
	if _, already := r.followers[u.ID]; already {
		return nil
	}
	now := s.now()
	r.followers[u.ID] = now
	s.notify("channel.follow", joinFields(userFields("", u), userFields("broadcaster_", r.owner), map[string]any{"followed_at": nanos(now)}),
		map[string]string{"broadcaster_user_id": r.owner.ID})
	return nil
}

// Subscribe makes a user subscribe to a channel for a number of months: the first month is a sub, a later month a
// resub. The chat gets a USERNOTICE. As on Twitch, EventSub sends channel.subscribe only for the first month.
func (s *Server) Subscribe(channel, login string, months int) error {
	s.lock()
	defer s.unlock()
	r, u, err := s.roomAndAccount(channel, login)
	if err != nil {
		return err
	}
	months = max(months, 1)
	role := r.roles[u.ID]
	role.SubscriberMonths = months
	r.roles[u.ID] = role
	id, text := "sub", u.DisplayName+" subscribed at Tier 1."
	if months > 1 {
		id = "resub"
		text += " They've subscribed for " + strconv.Itoa(months) + " months!"
	}
	s.userNotice(r, u, id, text, tags{
		"msg-param-cumulative-months":   strconv.Itoa(months),
		"msg-param-months":              "0",
		"msg-param-should-share-streak": "0",
		"msg-param-sub-plan":            "1000",
		"msg-param-sub-plan-name":       "Channel Subscription (" + r.name() + ")",
	})
	if months == 1 {
		s.notify("channel.subscribe", joinFields(userFields("", u), userFields("broadcaster_", r.owner), map[string]any{"tier": "1000", "is_gift": false}),
			map[string]string{"broadcaster_user_id": r.owner.ID})
	}
	return nil
}

// Raid sends the viewers of the channel from to the channel to.
func (s *Server) Raid(from, to string, viewers int) error {
	s.lock()
	defer s.unlock()
	r, u, err := s.roomAndAccount(to, from)
	if err != nil {
		return err
	}
	s.userNotice(r, u, "raid", strconv.Itoa(viewers)+" raiders from "+u.DisplayName+" have joined!", tags{
		"msg-param-displayName": u.DisplayName,
		"msg-param-login":       u.Login,
		"msg-param-viewerCount": strconv.Itoa(viewers),
	})
	s.notify("channel.raid", joinFields(userFields("from_broadcaster_", u), userFields("to_broadcaster_", r.owner), map[string]any{"viewers": viewers}),
		map[string]string{"from_broadcaster_user_id": u.ID, "to_broadcaster_user_id": r.owner.ID})
	return nil
}

// userNotice sends a channel a notice about a user. https://dev.twitch.tv/docs/chat/irc/#usernotice-tags
func (s *Server) userNotice(r *room, u *account, id, text string, params tags) {
	t := userTags(r, u)
	for k, v := range params {
		t[k] = v
	}
	t["emotes"] = ""
	t["id"] = newID()
	t["login"] = u.Login
	t["msg-id"] = id
	t["room-id"] = r.owner.ID
	t["system-msg"] = text
	t["tmi-sent-ts"] = millis(s.now())
	t["user-id"] = u.ID
	r.broadcast(message{tags: t, prefix: host, command: "USERNOTICE", params: []string{"#" + r.name()}})
}

// GoOnline starts a channel's stream. An empty id and a zero time are filled in.
func (s *Server) GoOnline(channel string, st Stream) error {
	s.lock()
	defer s.unlock()
	a, err := s.account(channel)
	if err != nil {
		return err
	}
	if st.ID == "" {
		s.lastID++
		st.ID = strconv.Itoa(s.lastID)
	}
	st.StartedAt = cmp.Or(st.StartedAt, s.now())
	was := a.room.stream
	a.room.stream, a.room.title, a.room.game = &st, st.Title, st.Game
	if was == nil {
		s.notify("stream.online", joinFields(userFields("broadcaster_", a), map[string]any{
			"id": st.ID, "type": "live", "started_at": rfc3339(st.StartedAt),
		}), map[string]string{"broadcaster_user_id": a.ID})
	}
	return nil
}

// GoOffline ends a channel's stream.
func (s *Server) GoOffline(channel string) error {
	s.lock()
	defer s.unlock()
	a, err := s.account(channel)
	if err != nil {
		return err
	}
	if a.room.stream != nil {
		a.room.stream = nil
		s.notify("stream.offline", userFields("broadcaster_", a), map[string]string{"broadcaster_user_id": a.ID})
	}
	return nil
}

// notifyChat sends channel.chat.message.
func (s *Server) notifyChat(r *room, u *account, l *Line) {
	if len(s.subs) == 0 {
		return
	}
	t := userTags(r, u)
	badges := []map[string]string{}
	for _, b := range strings.FieldsFunc(t["badges"], func(r rune) bool { return r == ',' }) {
		set, id, _ := strings.Cut(b, "/")
		info := ""
		if set == "subscriber" {
			info = strconv.Itoa(r.roles[u.ID].SubscriberMonths)
		}
		badges = append(badges, map[string]string{"set_id": set, "id": id, "info": info})
	}
	var reply any
	if parent := r.byID[l.ReplyTo]; parent != nil {
		root := r.thread(parent)
		reply = map[string]any{
			"parent_message_id":   parent.ID,
			"parent_message_body": parent.Text,
			"parent_user_id":      parent.UserID,
			"parent_user_login":   parent.Login,
			"parent_user_name":    parent.DisplayName,
			"thread_message_id":   root.ID,
			"thread_user_id":      root.UserID,
			"thread_user_login":   root.Login,
			"thread_user_name":    root.DisplayName,
		}
	}
	s.notify("channel.chat.message", joinFields(userFields("broadcaster_", r.owner), userFields("chatter_", u), map[string]any{
		"message_id": l.ID,
		"message": map[string]any{
			"text":      l.Text,
			"fragments": []map[string]any{{"type": "text", "text": l.Text, "cheermote": nil, "emote": nil, "mention": nil}},
		},
		"message_type":                    "text",
		"badges":                          badges,
		"cheer":                           nil,
		"color":                           u.Color,
		"reply":                           reply,
		"channel_points_custom_reward_id": nil,
		"channel_points_animation_id":     nil,
	}), map[string]string{"broadcaster_user_id": r.owner.ID})
}

// notifyWhisper sends user.whisper.message.
func (s *Server) notifyWhisper(from, to *account, w Whisper) {
	s.notify("user.whisper.message", joinFields(userFields("from_", from), userFields("to_", to), map[string]any{
		"whisper_id": w.ID,
		"whisper":    map[string]any{"text": w.Text},
	}), map[string]string{"user_id": to.ID})
}
