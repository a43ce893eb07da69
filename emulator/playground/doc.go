// Package playground serves a page next to the emulator's chat page, and an API for programs. On the page, a person speaks
// as any user of the fakes of Twitch and Discord, in channels and in private to the bot. The page shows every line received
// by a platform with its author, and the actions of moderators. The API does the same for a program, with every part of a
// message. Start with [New].
//
//	GET  /        the page and its files
//	GET  /events  Server-Sent Events of the page: "platform" with a Platform, at the start and after every change, and
//	              "lines" with [Line…], the earlier lines at the start and then each new or changed line
//	     /api/    the API
//
// Addresses in the page are relative. To serve the page under a prefix, strip the prefix from the request's path, but
// keep the last slash of the prefix.
//
// The package uses the Go methods of the fakes and opens no connection. A visitor may speak as any user, so serve the
// page on the loopback interface only. Events and API need the token of this start, in the header
// "Authorization: Bearer TOKEN". The page takes the token from the fragment of its address (#demo=TOKEN). Pages of other
// origins cannot use the page and get 403; there is no CORS. Only requests to localhost and to loopback addresses are
// served. Any other host gets 421, even if the host's name resolves to this machine.
//
// # API
//
// Bodies are JSON objects with the header Content-Type: application/json, of at most 64 KiB. A field may be missing if
// the tables below give a default, or do not call the field required; the other defaults are "", 0, false and no entries.
// A response is 200 with a JSON body, or 204 without a body. An error has the body {"error", "field"}: error is the reason
// for people. field names the field of the body, such as "attachments.0.name", the part of the path, the query parameter
// or the header, or is empty.
//
//	400  the body is not a JSON object; or an unknown, repeated or mistyped field, or an unknown or invalid query parameter
//	401  the token is missing or wrong
//	403  the request comes from a page of another origin
//	404  the path has no route, or names something that does not exist
//	405  the path does not have this method; the header Allow lists its methods
//	413  the body is too large
//	415  the header Content-Type is not application/json
//	421  the Host is not localhost or a loopback address
//	422  a value is not possible, or the platform refuses the message
//	503  the fake is closing
//
// GET returns a list as {"items": […], "next": N}. The query parameter after=N skips the first N entries (default 0), and
// limit is the largest number of items (default 100, at most 1000). Give next as after to get the following entries. In
// the lists marked with w, wait=SECONDS (at most 30) waits until there is an item. In the lists marked with u, user=USER
// selects an author. Times are in RFC 3339.
//
// Twitch; users and channels are named by their login:
//
//	GET     /api/twitch/users                             list of User
//	PUT     /api/twitch/users/{login}                     {displayName, color} → User; makes or changes a user
//	GET     /api/twitch/users/{login}/whispers            list (w) of Whisper received by the user
//	POST    /api/twitch/users/{login}/whispers            {user, text} → Whisper to the user of the path
//	GET     /api/twitch/channels/{login}/chatters         list (w) of {login}: the users in the channel over IRC
//	GET     /api/twitch/channels/{login}/messages         list (w, u) of Line, the bot's lines included
//	POST    /api/twitch/channels/{login}/messages         Message → Line
//	DELETE  /api/twitch/channels/{login}/messages         clears the chat
//	DELETE  /api/twitch/channels/{login}/messages/{id}    deletes a line
//	POST    /api/twitch/irc                               {login, line} → {connections}; sends a raw line
//	GET     /api/twitch/channels/{login}/actions          list (w) of Action
//	PUT     /api/twitch/channels/{login}/roles/{user}     {moderator, vip, subscriberMonths}
//	PUT     /api/twitch/channels/{login}/settings         Settings
//	PUT     /api/twitch/channels/{login}/bans/{user}      {seconds, reason}; 0 seconds is a ban, otherwise a time-out
//	DELETE  /api/twitch/channels/{login}/bans/{user}      ends a ban or a time-out
//	POST    /api/twitch/faults                            one of the faults of Twitch → {connections}
//	DELETE  /api/twitch/faults                            removes the pending faults
//
// The bodies of Twitch:
//
//	User       id, login, displayName, color, connections (number of IRC connections)
//	Message    user    required; the author, also a bot
//	           text    required, at most 500 characters
//	           action  true for a /me
//	           replyTo id of the answered line
//	           id      of the line; default: a new id. A repeated id is a repeated message
//	           tags    IRC tags by name, such as {"bits": "100", "emotes": null}: replaces a tag of the PRIVMSG, null removes
//	                   it (https://dev.twitch.tv/docs/chat/irc/#privmsg-tags). EventSub does not have the tags
//	           typed   true: as typed by a person. Bans, limits and settings apply, a refusal is a 422 with the msg-id, "/me "
//	                   begins an action, and control characters become spaces
//	Line       id, channel, user, userId, displayName, text, action, replyTo, nonce, via (irc, helix or say), at, deleted
//	Whisper    id, user (the author), to, text, at
//	raw line   login is the receiving bot (default: every connection); line is required and has no line break
//	Action     action (ban, timeout, unban, delete or clear), by (empty for the API), user, messageId, seconds, reason, at
//	Settings   slowSeconds (0 to 120), followersOnlyMinutes (null is off), subscribersOnly, emoteOnly, uniqueChat
//
// A fault of Twitch has exactly one of these members. connections counts the affected connections; a fault of later
// requests or messages affects none.
//
//	http      {method, path, skip, times, delayMs, done, status, headers, message, drop, hang}: see fake.HTTPFault
//	chat      {user, channel, skip, times, notice, done, drop}: see twitch.ChatFault
//	irc       {login, effect: drop, reconnect or delay, delayMs}; an empty login means every connection
//	eventsub  {effect: drop, reconnect, repeat or close, code}
//
// Discord; users, guilds, channels, roles and messages are named by their id:
//
//	GET     /api/discord/users                                              list of User
//	PUT     /api/discord/users/{user}                                       {name, globalName} → User; makes or changes a person
//	GET     /api/discord/guilds                                             list of {id, name, ownerId}
//	GET     /api/discord/guilds/{guild}/channels                            list of {id, name, type}
//	GET     /api/discord/guilds/{guild}/roles                               list of Role
//	PUT     /api/discord/guilds/{guild}/roles/{role}                        {name, position, permissions, mentionable} → Role
//	GET     /api/discord/guilds/{guild}/members                             list of Member
//	PUT     /api/discord/guilds/{guild}/members/{user}                      {nick, roles} → Member; also adds a member
//	DELETE  /api/discord/guilds/{guild}/members/{user}                      removes a member
//	GET     /api/discord/guilds/{guild}/channels/{channel}/messages         list (w, u) of Said, the bot's messages included
//	POST    /api/discord/guilds/{guild}/channels/{channel}/messages         Message → Said
//	PATCH   /api/discord/guilds/{guild}/channels/{channel}/messages/{id}    {text} → Said; edits a message of any author
//	DELETE  /api/discord/guilds/{guild}/channels/{channel}/messages/{id}    deletes a message
//	POST    /api/discord/guilds/{guild}/channels/{channel}/messages/bulk-delete  {messages}: 2 to 100 ids
//	GET     /api/discord/dms/{user}/{bot}/messages                          the same for direct messages
//	POST    /api/discord/dms/{user}/{bot}/messages                          the author is one of the two
//	PATCH   /api/discord/dms/{user}/{bot}/messages/{id}
//	DELETE  /api/discord/dms/{user}/{bot}/messages/{id}
//	POST    /api/discord/dms/{user}/{bot}/messages/bulk-delete
//	GET     /api/discord/guilds/{guild}/actions                             list (w) of Action of bots: the audit log
//	PUT     /api/discord/guilds/{guild}/bans/{user}                         {reason}
//	DELETE  /api/discord/guilds/{guild}/bans/{user}
//	PUT     /api/discord/guilds/{guild}/timeouts/{user}                     {seconds}: 1 to 2419200 (28 days)
//	DELETE  /api/discord/guilds/{guild}/timeouts/{user}
//	POST    /api/discord/faults                                             one of the faults of Discord → {connections}
//	DELETE  /api/discord/faults                                             removes the pending faults
//
// The bodies of Discord:
//
//	User         id, name, globalName, bot, connections (number of a bot's gateway connections)
//	Role         id, name, position, permissions (the bits as a decimal number in a string), mentionable. The id of @everyone
//	             is the guild's id
//	Member       user (a User), nick, roles (ids), timedOutUntil
//	Message      user        required; the author, also a bot
//	             text        at most 4000 characters, 2000 if typed; required without another part
//	             replyTo     id of the answered message
//	             ping        false: a reply without a ping of the answered author. Default: true
//	             attachments at most 10 of {id, url, name, contentType, size, seconds}; name is required, seconds is the
//	                         duration of a voice message. Default of id and url: new ones
//	             stickers    at most 3 of {id, name}
//	             embeds      at most 10 embeds in Discord's form
//	                         (https://discord.com/developers/docs/resources/message#embed-object)
//	             poll        {question, answers}
//	             forward     {channel, message}: the message becomes a forward, with a snapshot
//	             fields      further fields of the message object, such as {"type": 7}; they replace fields of the fake
//	             typed       true: as typed by a person. Time-outs and permissions apply; a refusal is a 422
//	Said         id, channel, guild, user, name, bot, text, replyTo, nonce, mentions, mentionRoles, mentionEveryone, pings (ids of
//	             all notified users), attachments, stickers, embeds, poll, via (api or say), at, editedAt, deleted
//	Action       action (such as MEMBER_BAN_ADD), byId, targetId, reason, at
//
// A fault of Discord has exactly one of these members:
//
//	http      {method, path, skip, times, delayMs, done, status, headers, message, retryAfterMs, global, drop, hang}: see
//	          fake.HTTPFault
//	dispatch  {bot, type, skip, times, lost, delayMs, twice}: see discord.DispatchFault
//	gateway   {bot, effect: drop, reconnect, invalidate, forget, stop-acks, heartbeat or close, code, resumable}; an empty bot
//	          means every bot
package playground
