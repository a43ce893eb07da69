package store

// Collection describes a Firestore collection of Parley: its documents, the package with access to it, and the
// configuration in Firestore.
type Collection struct {
	// Name is the collection id.
	Name string
	// Document is the path of a document, with the variable parts in braces.
	Document string
	// Owner is the only package that reads or writes the collection, as a path in this module.
	Owner string
	// Struct is the name of the Go type of a document, in the Owner's package. The type documents the fields.
	Struct string
	// Content says what a document is.
	Content string
	// TTLField is the field of the collection's TTL policy. Firestore deletes a document some time after the time in
	// the field, usually within a day. Empty means no TTL policy.
	TTLField string
	// Retention is the lifetime of a document, in words.
	Retention string
	// PerEvent means that documents are made for events, so the number of documents grows with the traffic and not with
	// the users, channels and instances. The emulator keeps such documents for a shorter time (its flag --retention).
	PerEvent bool
	// Indexes are the composite indexes. In addition, Firestore indexes each single field, except for the fields listed
	// in terraform/firestore.tf.
	Indexes []Index
}

// Index is a composite index.
type Index struct {
	Equal      []string // fields compared for equality, in any order
	By         string   // the last field: sorted, compared by a range, or compared for equality
	Descending bool     // the order of By
}

//go:generate go test ../repository -run TestReadmeTablesAreCurrent/collections -update

// Collections is the data model of Parley: all Firestore collections. Tests compare the table with the calls in the code,
// and with Terraform's indexes and TTL policies.
//
// Document ids made by a program are hashes, or platform ids. Firestore slows down if ids grow in sequence
// (https://cloud.google.com/firestore/docs/best-practices#document_ids).
var Collections = []Collection{
	{
		Name: "users", Document: "users/{platform:id}", Owner: "shared/store", Struct: "userDocument",
		Content:   "a person, with roles, profile and message counts",
		Retention: "forever",
	},
	{
		Name: "identities", Document: "identities/{platform:id}", Owner: "shared/store", Struct: "Link",
		Content:   "the link from a second platform id to the person's own id",
		Retention: "until the link is removed",
	},
	{
		Name: "tokens", Document: "gateways/api/tokens/{SHA-256 of the token}", Owner: "shared/store", Struct: "Token",
		Content:   "the access token of a WebSocket client",
		Retention: "forever, also after expiry or revocation",
	},
	{
		Name: "personalities", Document: "personalities/{id}", Owner: "shared/store", Struct: "Personality",
		Content:   "a style for answers, written by an operator",
		Retention: "forever",
		Indexes:   []Index{{Equal: []string{"name"}, By: "status"}},
	},
	{
		Name: "rules", Document: "rules/{id}", Owner: "shared/store", Struct: "Rule",
		Content:   "an enrichment rule, written by an operator",
		Retention: "forever",
	},
	{
		Name: "conversations", Document: "conversations/{hash of channel and user}", Owner: "shared/store", Struct: "Conversation",
		Content:   "the last turns between a user and the model in a channel",
		TTLField:  "expireAt",
		Retention: "MEMORY_RETENTION after the last turn (default 24 h)",
	},
	{
		Name: "deliveries", Document: "deliveries/{hash}", Owner: "shared/delivery", Struct: "Entry",
		Content:   "the ledger entry of an answer: state, deadline, event and outcome",
		TTLField:  "expireAt",
		Retention: "EGRESS_RETENTION (default 72 h) after creation or redrive; at least 30 days after a dead letter",
		PerEvent:  true,
		Indexes: []Index{
			{Equal: []string{"userId", "destination", "state"}, By: "openedAt"},
			{Equal: []string{"shard", "state"}, By: "deadline"},
			{Equal: []string{"shard", "state"}, By: "leaseUntil"},
			{Equal: []string{"state", "announced"}, By: "settledAt"},
		},
	},
	{
		Name: "deadletters", Document: "deadletters/{hash}", Owner: "shared/deadletter", Struct: "DeadLetter",
		Content:   "a message that failed for good, with the reason",
		TTLField:  "expireAt",
		Retention: "30 days after the last failure",
		PerEvent:  true,
		Indexes: []Index{
			{Equal: []string{"reason"}, By: "at", Descending: true},
			{Equal: []string{"status"}, By: "at", Descending: true},
			{Equal: []string{"reason", "status"}, By: "at", Descending: true},
		},
	},
	{
		Name: "parts", Document: "deadletters/{hash}/parts/{number}", Owner: "shared/deadletter", Struct: "Part",
		Content:   "a part of a dead letter's data, if the data does not fit in a document",
		TTLField:  "expireAt",
		Retention: "30 days after the last failure",
		PerEvent:  true,
	},
	{
		Name: "moderation", Document: "moderation/{delivery id}", Owner: "gateway/moderator", Struct: "Record",
		Content:   "a moderation action: requester, target, reason, and the outcome of each attempt",
		Retention: "forever",
		PerEvent:  true,
	},
	{
		Name: "credentials", Document: "credentials/{platform:id}", Owner: "shared/credential", Struct: "document",
		Content:   "the encrypted OAuth tokens of a person or bot",
		Retention: "until the credential is removed",
	},
	{
		Name: "logins", Document: "logins/{SHA-256 of the state}", Owner: "gateway/oauth", Struct: "attempt",
		Content:   "an OAuth login in progress",
		TTLField:  "expireAt",
		Retention: "until the login ends or expires",
	},
	{
		Name: "leases", Document: "leases/{kind}:{key}", Owner: "shared/lease", Struct: "leaseDoc",
		Content:   "the owner of a key, such as a channel, and the lease's token",
		TTLField:  "expireAt",
		Retention: "24 hours after release",
	},
	{
		Name: "leaseMembers", Document: "leaseMembers/{session}", Owner: "shared/lease", Struct: "memberDoc",
		Content:   "an instance's membership in a group sharing keys",
		TTLField:  "expireAt",
		Retention: "24 hours after the last heartbeat",
	},
	{
		Name: "gaps", Document: "gaps/{hash}", Owner: "gateway/gap", Struct: "Gap",
		Content:   "a time in which no instance listened to a channel",
		TTLField:  "expireAt",
		Retention: "30 days after the end of the gap",
		PerEvent:  true,
	},
	{
		Name: "watermarks", Document: "watermarks/discord:{channel}", Owner: "gateway/discord", Struct: "watermark",
		Content:   "the last processed message of a Discord channel",
		TTLField:  "expireAt",
		Retention: "90 days after the last message",
	},
	{
		Name: "whispers", Document: "whispers/{twitch:bot}", Owner: "functions/whisper", Struct: "sender",
		Content:   "the recent whispers of a bot, for Twitch's rate limits",
		TTLField:  "expireAt",
		Retention: "48 hours after the last whisper",
	},
	{
		Name: "recipients", Document: "whispers/{twitch:bot}/recipients/{twitch:id}", Owner: "shared/recipient", Struct: "Recipient",
		Content:   "a person in a whisper conversation with a bot",
		TTLField:  "expireAt",
		Retention: "365 days after the last whisper",
	},
}
