package moderation

import "slices"

// Roles are the roles with permission for actions, the highest first:
//
//   - A role given by hand, by an operator, permits actions in every channel.
//   - A role given by a platform permits actions in the channel of the requesting event, and only if this very event
//     carries the role. A stored role is not enough: the platform may have taken the role away since.
//
// Rules need no role: the rule's condition, written by an operator, decides alone.
var Roles = []string{"broadcaster", "moderator"}

// PermittedRole returns the highest role with permission among a user's roles, or an empty string for no permission. The
// caller decides which of a user's roles count: see [Roles].
func PermittedRole(roles []string) string {
	for _, role := range Roles {
		if slices.Contains(roles, role) {
			return role
		}
	}
	return ""
}
