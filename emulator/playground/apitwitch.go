package playground

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"parley.internal/emulator/twitch"
)

// twitchAPI serves the part of the API for Twitch. The types of bodies are described in the package comment.
type twitchAPI struct{ srv *twitch.Server }

func (a twitchAPI) routes() []route {
	const channel = "/api/twitch/channels/{login}"
	return []route{
		{"GET /api/twitch/users", pages, a.users},
		{"PUT /api/twitch/users/{login}", "", a.putUser},
		{"GET /api/twitch/users/{login}/whispers", growing, a.whispers},
		{"POST /api/twitch/users/{login}/whispers", "", a.whisper},
		{"GET " + channel + "/chatters", growing, a.chatters},
		{"GET " + channel + "/messages", messages, a.messages},
		{"POST " + channel + "/messages", "", a.say},
		{"DELETE " + channel + "/messages", "", a.clear},
		{"DELETE " + channel + "/messages/{id}", "", a.delete},
		{"POST /api/twitch/irc", "", a.pushIRC},
		{"GET " + channel + "/actions", growing, a.actions},
		{"PUT " + channel + "/roles/{user}", "", a.setRole},
		{"PUT " + channel + "/settings", "", a.setSettings},
		{"PUT " + channel + "/bans/{user}", "", a.ban},
		{"DELETE " + channel + "/bans/{user}", "", a.unban},
		{"POST /api/twitch/faults", "", a.fault},
		{"DELETE /api/twitch/faults", "", func(*http.Request) (any, error) { a.srv.ClearFaults(); return nil, nil }},
	}
}

// inPath returns the user named by a part of the path.
func (a twitchAPI) inPath(r *http.Request, name string) (twitch.User, error) {
	u, ok := a.srv.User(r.PathValue(name))
	if !ok {
		return u, refuse(http.StatusNotFound, name, "there is no user %q on Twitch", r.PathValue(name))
	}
	return u, nil
}

// inBody returns the user named by a field of the body.
func (a twitchAPI) inBody(field, login string) (twitch.User, error) {
	if err := required(field, login); err != nil {
		return twitch.User{}, err
	}
	u, ok := a.srv.User(login)
	if !ok {
		return u, invalid(field, "there is no user %q on Twitch", login)
	}
	return u, nil
}

type twitchUser struct {
	ID          string `json:"id"`
	Login       string `json:"login"`
	DisplayName string `json:"displayName"`
	Color       string `json:"color"`
	// Connections is the number of IRC connections.
	Connections int `json:"connections"`
}

func (a twitchAPI) user(u twitch.User) twitchUser {
	return twitchUser{u.ID, u.Login, u.DisplayName, u.Color, a.srv.Connections(u.Login)}
}

func (a twitchAPI) users(r *http.Request) (any, error) {
	return list(r, a.srv.Await, func(n int) []twitch.User { return after(a.srv.Users(), n) }, all(a.user))
}

// maxUsers bounds the users of each fake.
const maxUsers = 10_000

var colorPattern = regexp.MustCompile(`^(#[0-9A-Fa-f]{6})?$`)

func (a twitchAPI) putUser(r *http.Request) (any, error) {
	var in struct {
		DisplayName string `json:"displayName"`
		Color       string `json:"color"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	u, ok := a.srv.User(r.PathValue("login"))
	if !ok && len(a.srv.Users()) >= maxUsers {
		return nil, invalid("login", "there are already %d users", maxUsers)
	}
	if !colorPattern.MatchString(in.Color) {
		return nil, invalid("color", "%q is not of the form #1E90FF", in.Color)
	}
	if !ok {
		u.Login = r.PathValue("login")
	}
	u.DisplayName, u.Color = in.DisplayName, in.Color
	u, err := a.srv.AddUser(u)
	if err != nil {
		return nil, refused("displayName", err)
	}
	return a.user(u), nil
}

// Largest lengths: of a line or a whisper in characters (https://dev.twitch.tv/docs/api/reference/#send-chat-message),
// and of all tags of a line in bytes (https://ircv3.net/specs/extensions/message-tags#size-limit).
const (
	maxTwitchText = 500
	maxTags       = 8191
)

type twitchMessage struct {
	User    string             `json:"user"`
	Text    string             `json:"text"`
	Action  bool               `json:"action"`
	ReplyTo string             `json:"replyTo"`
	ID      string             `json:"id"`
	Tags    map[string]*string `json:"tags"`
	Typed   bool               `json:"typed"`
}

type twitchLine struct {
	ID          string    `json:"id"`
	Channel     string    `json:"channel"`
	User        string    `json:"user"`
	UserID      string    `json:"userId"`
	DisplayName string    `json:"displayName"`
	Text        string    `json:"text"`
	Action      bool      `json:"action"`
	ReplyTo     string    `json:"replyTo"`
	Nonce       string    `json:"nonce"`
	Via         string    `json:"via"`
	At          time.Time `json:"at"`
	Deleted     bool      `json:"deleted"`
}

func toTwitchLine(l twitch.Line) twitchLine {
	return twitchLine{l.ID, l.Channel, l.Login, l.UserID, l.DisplayName, l.Text, l.Action, l.ReplyTo, l.Nonce, l.Via, l.At, l.Deleted}
}

func (a twitchAPI) messages(r *http.Request) (any, error) {
	channel, err := a.inPath(r, "login")
	if err != nil {
		return nil, err
	}
	author := r.URL.Query().Get("user")
	return list(r, a.srv.Await, func(n int) []twitch.Line { return a.srv.SaidFrom(channel.Login, n) }, func(l twitch.Line) (twitchLine, bool) {
		return toTwitchLine(l), author == "" || strings.EqualFold(author, l.Login)
	})
}

func (a twitchAPI) chatters(r *http.Request) (any, error) {
	channel, err := a.inPath(r, "login")
	if err != nil {
		return nil, err
	}
	type chatter struct {
		Login string `json:"login"`
	}
	return list(r, a.srv.Await, func(n int) []string { return after(a.srv.Joined(channel.Login), n) }, all(func(login string) chatter {
		return chatter{login}
	}))
}

func (a twitchAPI) say(r *http.Request) (any, error) {
	channel, err := a.inPath(r, "login")
	if err != nil {
		return nil, err
	}
	var in twitchMessage
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	from, err := a.inBody("user", in.User)
	if err != nil {
		return nil, err
	}
	options, err := a.options(channel, &in)
	if err != nil {
		return nil, err
	}
	l, err := a.srv.Say(channel.Login, from.Login, in.Text, options...)
	if err != nil {
		return nil, refused("text", err)
	}
	return toTwitchLine(l), nil
}

// options checks a message and returns its options. A typed text becomes the text that a person's chat client sends.
func (a twitchAPI) options(channel twitch.User, in *twitchMessage) ([]twitch.SayOption, error) {
	var options []twitch.SayOption
	if in.Typed {
		options = append(options, twitch.AsTyped())
		in.Text = cleanText(in.Text, "") // Twitch's input field has one line
		if body, ok := strings.CutPrefix(in.Text, "/me "); ok {
			in.Text, in.Action = strings.TrimSpace(body), true
		}
	}
	if err := checkText(in.Text, maxTwitchText); err != nil {
		return nil, err
	}
	if in.Action {
		options = append(options, twitch.AsAction())
	}
	if in.ReplyTo != "" {
		if !slices.ContainsFunc(a.srv.Said(channel.Login), func(l twitch.Line) bool { return l.ID == in.ReplyTo }) {
			return nil, invalid("replyTo", "there is no line %q in #%s", in.ReplyTo, channel.Login)
		}
		options = append(options, twitch.ReplyingTo(in.ReplyTo))
	}
	if len(in.ID) > 100 {
		return nil, invalid("id", "is longer than 100 bytes")
	}
	if in.ID != "" {
		options = append(options, twitch.WithID(in.ID))
	}
	size := 0
	for name, value := range in.Tags {
		if !twitch.IsTag(name) {
			return nil, invalid("tags."+name, "is not the name of a tag")
		}
		if size += len(name) + 2; value != nil {
			size += len(*value)
		}
	}
	if size > maxTags {
		return nil, invalid("tags", "are longer than %d bytes", maxTags)
	}
	return append(options, twitch.WithTags(in.Tags)), nil
}

func (a twitchAPI) clear(r *http.Request) (any, error) {
	channel, err := a.inPath(r, "login")
	if err != nil {
		return nil, err
	}
	return nil, a.srv.Clear(channel.Login)
}

func (a twitchAPI) delete(r *http.Request) (any, error) {
	channel, err := a.inPath(r, "login")
	if err != nil {
		return nil, err
	}
	if !a.srv.Delete(channel.Login, r.PathValue("id")) {
		return nil, refuse(http.StatusNotFound, "id", "there is no line %q in #%s", r.PathValue("id"), channel.Login)
	}
	return nil, nil
}

type twitchWhisper struct {
	ID   string    `json:"id"`
	User string    `json:"user"`
	To   string    `json:"to"`
	Text string    `json:"text"`
	At   time.Time `json:"at"`
}

func toTwitchWhisper(w twitch.Whisper) twitchWhisper {
	return twitchWhisper{w.ID, w.From, w.To, w.Text, w.At}
}

func (a twitchAPI) whispers(r *http.Request) (any, error) {
	to, err := a.inPath(r, "login")
	if err != nil {
		return nil, err
	}
	return list(r, a.srv.Await, func(n int) []twitch.Whisper { return after(a.srv.Whispers(to.Login), n) }, all(toTwitchWhisper))
}

func (a twitchAPI) whisper(r *http.Request) (any, error) {
	to, err := a.inPath(r, "login")
	if err != nil {
		return nil, err
	}
	var in struct {
		User string `json:"user"`
		Text string `json:"text"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	from, err := a.inBody("user", in.User)
	if err != nil {
		return nil, err
	}
	if from.ID == to.ID {
		return nil, invalid("user", "nobody whispers to the own account")
	}
	text := cleanText(in.Text, "")
	if err := checkText(text, maxTwitchText); err != nil {
		return nil, err
	}
	w, err := a.srv.Whisper(from.Login, to.Login, text)
	if err != nil {
		return nil, refused("text", err)
	}
	return toTwitchWhisper(w), nil
}

func (a twitchAPI) pushIRC(r *http.Request) (any, error) {
	var in struct {
		Login string `json:"login"`
		Line  string `json:"line"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if in.Login != "" {
		if _, err := a.inBody("login", in.Login); err != nil {
			return nil, err
		}
	}
	if err := required("line", in.Line); err != nil {
		return nil, err
	}
	if strings.ContainsAny(in.Line, "\r\n") {
		return nil, invalid("line", "is more than one line")
	}
	return count{a.srv.PushIRC(in.Login, in.Line)}, nil
}

type twitchAction struct {
	Action    string    `json:"action"`
	By        string    `json:"by"`
	User      string    `json:"user"`
	MessageID string    `json:"messageId"`
	Seconds   int       `json:"seconds"`
	Reason    string    `json:"reason"`
	At        time.Time `json:"at"`
}

func (a twitchAPI) actions(r *http.Request) (any, error) {
	channel, err := a.inPath(r, "login")
	if err != nil {
		return nil, err
	}
	return list(r, a.srv.Await, func(n int) []twitch.Action { return after(a.srv.Actions(channel.Login), n) }, all(func(x twitch.Action) twitchAction {
		return twitchAction{x.Kind, x.By, x.Login, x.MessageID, int(x.Duration / time.Second), x.Reason, x.At}
	}))
}

// channelAndUser returns the channel and the user of the path.
func (a twitchAPI) channelAndUser(r *http.Request) (channel, user twitch.User, err error) {
	if channel, err = a.inPath(r, "login"); err == nil {
		user, err = a.inPath(r, "user")
	}
	return channel, user, err
}

func (a twitchAPI) setRole(r *http.Request) (any, error) {
	channel, user, err := a.channelAndUser(r)
	if err != nil {
		return nil, err
	}
	var in struct {
		Moderator        bool `json:"moderator"`
		VIP              bool `json:"vip"`
		SubscriberMonths int  `json:"subscriberMonths"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if in.SubscriberMonths < 0 || in.SubscriberMonths > 1200 {
		return nil, invalid("subscriberMonths", "is not from 0 to 1200")
	}
	return nil, a.srv.SetRole(channel.Login, user.Login, twitch.Role{
		Moderator: in.Moderator, VIP: in.VIP, SubscriberMonths: in.SubscriberMonths,
	})
}

// Largest values of settings: https://dev.twitch.tv/docs/api/reference/#update-chat-settings
const (
	maxSlow          = 2 * time.Minute
	maxFollowMinutes = 129600 // 3 months
)

func (a twitchAPI) setSettings(r *http.Request) (any, error) {
	channel, err := a.inPath(r, "login")
	if err != nil {
		return nil, err
	}
	var in struct {
		SlowSeconds          int  `json:"slowSeconds"`
		FollowersOnlyMinutes *int `json:"followersOnlyMinutes"`
		SubscribersOnly      bool `json:"subscribersOnly"`
		EmoteOnly            bool `json:"emoteOnly"`
		UniqueChat           bool `json:"uniqueChat"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	settings := twitch.Settings{SubscribersOnly: in.SubscribersOnly, EmoteOnly: in.EmoteOnly, UniqueChat: in.UniqueChat}
	if settings.Slow, err = seconds("slowSeconds", in.SlowSeconds, maxSlow); err != nil {
		return nil, err
	}
	if in.FollowersOnlyMinutes != nil {
		settings.FollowersOnlyMode, settings.FollowersOnly = true, *in.FollowersOnlyMinutes
		if settings.FollowersOnly < 0 || settings.FollowersOnly > maxFollowMinutes {
			return nil, invalid("followersOnlyMinutes", "is not from 0 to %d", maxFollowMinutes)
		}
	}
	return nil, a.srv.SetSettings(channel.Login, settings)
}

// maxTimeOut is the longest time-out on Twitch, and maxReason the longest reason of a ban in characters
// (https://dev.twitch.tv/docs/api/reference/#ban-user).
const (
	maxTimeOut = 14 * 24 * time.Hour
	maxReason  = 500
)

func (a twitchAPI) ban(r *http.Request) (any, error) {
	channel, user, err := a.channelAndUser(r)
	if err != nil {
		return nil, err
	}
	var in struct {
		Seconds int    `json:"seconds"`
		Reason  string `json:"reason"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	d, err := seconds("seconds", in.Seconds, maxTimeOut)
	if err != nil {
		return nil, err
	}
	if err := checkLength("reason", in.Reason, maxReason); err != nil {
		return nil, err
	}
	if channel.ID == user.ID {
		return nil, invalid("user", "the broadcaster cannot be banned")
	}
	return nil, a.srv.Ban(channel.Login, user.Login, d, in.Reason)
}

func (a twitchAPI) unban(r *http.Request) (any, error) {
	channel, user, err := a.channelAndUser(r)
	if err != nil {
		return nil, err
	}
	return nil, a.srv.Unban(channel.Login, user.Login)
}
