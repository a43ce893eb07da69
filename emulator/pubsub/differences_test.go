package pubsub_test

// difference is a deviation of Google's emulator from the service's documentation.
type difference struct {
	theirs string // the behaviour of Google's emulator
	source string // the documentation followed by ours
}

const (
	docFilter  = "https://cloud.google.com/pubsub/docs/subscription-message-filter"
	docLimits  = "https://cloud.google.com/pubsub/quotas#resource_limits"
	docSub     = "https://cloud.google.com/pubsub/docs/reference/rpc/google.pubsub.v1#subscription"
	docMessage = "https://cloud.google.com/pubsub/docs/reference/rpc/google.pubsub.v1#pubsubmessage"
	docFlow    = "https://cloud.google.com/pubsub/docs/reference/rpc/google.pubsub.v1#streamingpullrequest"
	docOrder   = "https://cloud.google.com/pubsub/docs/ordering"
	docRetry   = "https://cloud.google.com/pubsub/docs/handling-failures#exponential_backoff"
	docDead    = "https://cloud.google.com/pubsub/docs/dead-letter-topics"
	docOnce    = "https://cloud.google.com/pubsub/docs/exactly-once-delivery"
	docPush    = "https://cloud.google.com/pubsub/docs/push"
	docEmu     = "https://cloud.google.com/pubsub/docs/emulator#known-limitations"
)

// differences maps test names to differences. These tests do not run against Google's emulator (version 0.8.20).
var differences = map[string]difference{
	"TestTopicLabelsAreUpdatedByMask": {"UpdateTopic knows no labels", docEmu},

	"TestInvalidSubscriptionIsRefused/ack_deadline_too_short":  {"any ack deadline is taken, down to 0", docSub},
	"TestSubscriptionIsUpdatedByMask":                          {"any ack deadline is taken, down to 0", docSub},
	"TestInvalidSubscriptionIsRefused/expiration_too_soon":     {"expiration policies are not checked", docSub},
	"TestInvalidSubscriptionIsRefused/too_few_attempts":        {"the code is OUT_OF_RANGE", docDead},
	"TestInvalidSubscriptionIsRefused/too_many_attempts":       {"the code is OUT_OF_RANGE", docDead},
	"TestInvalidSubscriptionIsRefused/filter_of_no_language":   {"filters are not read", docFilter},
	"TestInvalidSubscriptionIsRefused/filter_mixes_AND_and_OR": {"filters are not read", docFilter},
	"TestInvalidSubscriptionIsRefused/filter_too_long":         {"filters are not read", docFilter},
	"TestFilterKeepsMessagesFromASubscription":                 {"filters are not applied", docFilter},

	"TestPublishLimits/too_many_bytes":         {"requests of more than 10 MB are taken", docLimits},
	"TestPublishLimits/too_many_attributes":    {"attributes have no limits", docLimits},
	"TestPublishLimits/attribute_key_long":     {"attributes have no limits", docLimits},
	"TestPublishLimits/attribute_key_reserved": {"attributes have no limits", docLimits},
	"TestPublishLimits/attribute_value_long":   {"attributes have no limits", docLimits},
	"TestPublishLimits/ordering_key_long":      {"ordering keys have no limit", docLimits},
	"TestPublishLimits/two_ordering_keys":      {"one request may have several ordering keys", docMessage},

	"TestStreamHoldsNoMoreThanItsLimits": {"a stream gets everything, whatever its limits", docFlow},
	"TestStreamOfOutstandingBytes":       {"a stream gets everything, whatever its limits", docFlow},

	"TestAckedMessagesOfAKeyComeAgainAfterANackedOne": {"acknowledged messages after a nacked one are not redelivered", docOrder},
	"TestRetryPolicyDelaysANackedMessage":             {"retry policies are not applied", docRetry},
	"TestMessageIsDeadLetteredAfterItsLastAttempt":    {"a message is not forwarded when its last attempt is nacked", docDead},
	"TestExactlyOnceRefusesAnAckOfAnEndedLease":       {"the code is INVALID_ARGUMENT, without details", docOnce},
	"TestStreamConfirmsAcksWithExactlyOnce":           {"streams confirm nothing", docOnce},

	"TestPushSuccessIsAnAckAndAnythingElseANack/failure_203": {"203 is a success too", docPush},
	"TestPushSaysTheAttemptWithADeadLetterPolicy":            {"push requests lack deliveryAttempt", docDead},
	"TestPushSubscriptionCannotBePulled":                     {"a push subscription can be pulled", docSub},
}
