package oauth

import (
	"crypto/sha256"
	"encoding/base64"
	"html/template"
)

// message is the content of a page.
type message struct {
	Title  string
	Text   string
	Scopes []explained
	Again  string // link for a new login; empty for none

	Form             bool // show the login form
	AsksSecret       bool // ask for the operator's secret in the form
	Bot, Broadcaster bool // roles checked in advance
}

type explained struct{ Name, For string }

const style = `body{font:1rem/1.5 system-ui,sans-serif;max-width:36rem;margin:3rem auto;padding:0 1rem;color-scheme:light dark}` +
	`label{display:block;margin:.75rem 0}input[type=password]{display:block;width:100%;font:inherit;box-sizing:border-box}button{font:inherit}`

// policy is the Content-Security-Policy of every page: only the inline style is allowed.
var policy = "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; style-src 'sha256-" + styleHash() + "'"

func styleHash() string {
	sum := sha256.Sum256([]byte(style))
	return base64.StdEncoding.EncodeToString(sum[:])
}

var layout = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{.Title}} – Parley</title>
<style>` + style + `</style>
<main>
<h1>{{.Title}}</h1>
{{with .Text}}<p>{{.}}</p>
{{end}}{{if .Scopes}}<ul>
{{range .Scopes}}<li><code>{{.Name}}</code>: {{.For}}</li>
{{end}}</ul>
{{end}}{{if .Form}}<form method="post" action="` + LoginPath + `">
<label><input type="checkbox" name="as" value="bot"{{if .Bot}} checked{{end}}> as the bot</label>
<label><input type="checkbox" name="as" value="broadcaster"{{if .Broadcaster}} checked{{end}}> as a broadcaster</label>
{{if .AsksSecret}}<label>Operator's secret; not needed for an account that is allowed to log in
<input type="password" name="secret" autocomplete="off"></label>
{{end}}<button>Go to Twitch</button>
</form>
{{end}}{{with .Again}}<p><a href="{{.}}">Log in again</a></p>
{{end}}</main>
</html>
`))
