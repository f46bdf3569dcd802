// Package notice says in words what a notification says in topic and parameters, in Korean and in English. Mail and the command line
// share it; a topic that it does not know is shown as it is.
package notice

import (
	"slices"
	"strings"
	"time"
	"unicode"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Languages in which something can be said.
const (
	English = "en"
	Korean  = "ko"
)

// Language is the one of them that a language tag (ko, ko-KR, en_US.UTF-8) asks for, or else the one that is usual, or else English.
func Language(tag, usual string) string {
	for _, wish := range []string{tag, usual} {
		primary, _, _ := strings.Cut(strings.ReplaceAll(strings.ToLower(wish), "_", "-"), "-")
		if primary == Korean || primary == English {
			return primary
		}
	}
	return English
}

// phrase is one sentence in both languages.
type phrase struct{ en, ko string }

func (p phrase) in(language string) string {
	if language == Korean {
		return p.ko
	}
	return p.en
}

// topic is what is said of a topic: {about} is the name of what it is about, {KEY} a parameter. Korean is written so that no particle
// depends on the last sound of what stands in a brace.
type topic struct {
	phrase
	// next is what to type to see more, or to do what is asked; empty for nothing.
	next string
}

var topics = map[string]topic{
	"request.submitted":             {phrase{"Request {about} was submitted", "신청 {about} 건이 제출되었습니다"}, show},
	"request.waiting":               {phrase{"Request {about} waits for your decision", "신청 {about} 건이 결재를 기다립니다"}, approve},
	"request.reminded":              {phrase{"Request {about} still waits for your decision", "신청 {about} 건이 아직 결재를 기다립니다"}, approve},
	"request.escalated":             {phrase{"Request {about} was not decided and has been passed on; it waits for your decision", "신청 {about} 건이 결재되지 않아 상위로 넘어왔습니다. 결재를 기다립니다"}, approve},
	"request.returned":              {phrase{"Request {about} was returned for correction", "신청 {about} 건에 보완 요청이 있습니다"}, show},
	"request.approved":              {phrase{"Request {about} was approved", "신청 {about} 건이 승인되었습니다"}, show},
	"request.rejected":              {phrase{"Request {about} was rejected", "신청 {about} 건이 반려되었습니다"}, show},
	"request.cancelled":             {phrase{"Request {about} was withdrawn", "신청 {about} 건이 취소되었습니다"}, show},
	"request.expired":               {phrase{"Request {about} was not decided in time and has expired", "신청 {about} 건이 기한 안에 결재되지 않아 만료되었습니다"}, show},
	"request.stuck":                 {phrase{"Too few people can decide on request {about}", "신청 {about} 건을 결재할 수 있는 사람이 부족합니다"}, show},
	"request.review-overdue":        {phrase{"Request {about} was let through as an emergency, and has not been reviewed in time", "긴급 변경으로 먼저 처리한 신청 {about} 건이 기한 안에 검토되지 않았습니다"}, show},
	"request.done":                  {phrase{"Request {about} has been carried out", "신청 {about} 건의 처리가 끝났습니다"}, show},
	"request.failed":                {phrase{"Request {about} could not be carried out", "신청 {about} 건의 처리가 실패했습니다"}, show},
	"request.lapsed":                {phrase{"Request {about} was approved, and what is not done of it is not carried out any more", "신청 {about} 건이 승인되었으나, 아직 처리되지 않은 부분은 더 이상 처리되지 않습니다"}, show},
	"request.commented":             {phrase{"There is a new comment on request {about}", "신청 {about} 건에 새 의견이 있습니다"}, show},
	"request.decided-for-you":       {phrase{"Somebody has decided on request {about} in your place", "신청 {about} 건이 대결되었습니다"}, show},
	"lease.started":                 {phrase{"The lease of VM {about} runs until {until}", "가상 서버 {about} 이용 기간이 시작되었습니다. 종료: {until}"}, lease},
	"lease.ends-soon":               {phrase{"The lease of VM {about} ends on {until}; ask for more time", "가상 서버 {about} 이용 기간이 곧 끝납니다. 종료: {until}"}, extend},
	"lease.expired":                 {phrase{"The lease of VM {about} is over: it is stopped, and goes to the trash on {until}", "가상 서버 {about} 이용 기간이 끝나 정지되었습니다. 휴지통 이동: {until}"}, extend},
	"lease.trashed":                 {phrase{"VM {about} is in the trash, and is deleted on {until}", "가상 서버 {about} 휴지통으로 옮겨졌습니다. 완전 삭제: {until}"}, untrash},
	"lease.extended":                {phrase{"The lease of VM {about} is extended, until {until}", "가상 서버 {about} 이용 기간이 연장되었습니다. 종료: {until}"}, lease},
	"lease.shortened":               {phrase{"The lease of VM {about} ends earlier, on {until}", "가상 서버 {about} 이용 기간이 단축되었습니다. 종료: {until}"}, lease},
	"role.shortened":                {phrase{"A role of yours ends earlier, on {until}: {about}", "역할의 기간이 단축되었습니다. 종료: {until}, 역할: {about}"}, ""},
	"crossing.shortened":            {phrase{"A crossing that you asked for ends earlier, on {until}: {about}", "망 간 허가의 기간이 단축되었습니다. 종료: {until}, 허가: {about}"}, "naru crossing list"},
	"delegation.created":            {phrase{"You may decide in the place of {from}", "{from} 님의 결재를 위임받았습니다"}, "naru delegation list"},
	"delegation.deleted":            {phrase{"You may no longer decide in the place of {from}", "{from} 님의 결재 위임이 끝났습니다"}, "naru delegation list"},
	"account.password-reset":        {phrase{"An administrator has set another password for you", "관리자가 비밀번호를 다시 설정했습니다"}, ""},
	"account.password-changed":      {phrase{"Your password was changed", "비밀번호가 변경되었습니다"}, ""},
	"account.authenticator-added":   {phrase{"An authenticator was added to your account", "계정에 인증기가 등록되었습니다"}, ""},
	"account.authenticator-removed": {phrase{"The authenticator was removed from your account", "계정에서 인증기가 해제되었습니다"}, ""},
	"account.sessions-revoked":      {phrase{"All your sessions were ended", "모든 세션이 종료되었습니다"}, ""},
	"account.new-device":            {phrase{"You were logged in from a machine that was not known", "알려지지 않은 기기에서 로그인했습니다"}, "naru session list"},
	"account.identity-linked":       {phrase{"You can now log in through {provider}, and so can whoever is linked with you there", "이제 {provider} 계정으로 로그인할 수 있습니다. 연결된 계정이 본인의 것인지 확인하십시오"}, ""},
	"account.disabled":              {phrase{"Your account was disabled", "계정이 비활성화되었습니다"}, ""},
	"account.enabled":               {phrase{"Your account was enabled again", "계정이 다시 활성화되었습니다"}, ""},
	"channel.test":                  {phrase{"This is a test of channel {about}", "채널 {about} 시험 메시지입니다"}, ""},
}

const (
	show    = "naru request show {about}"
	approve = "naru approve {about}"
	lease   = "naru lease show {about}"
	extend  = "naru lease extend {about} --days 30"
	untrash = "naru request create --untrash --vm {about}"
)

// Topics returns the topics that can be said in words.
func Topics() []string {
	var out []string
	for name := range topics {
		out = append(out, name)
	}
	return out
}

// labels of facts, in the order in which they are told.
var labels = []struct {
	key string
	phrase
}{
	{"project", phrase{"Project", "프로젝트"}},
	{"zone", phrase{"Zone", "존"}},
	{"stage", phrase{"Stage", "결재 단계"}},
	{"for", phrase{"In the place of", "위임자"}},
	{"by", phrase{"By", "처리한 사람"}},
}

// gone is said where the reader may no longer see what it is about.
var gone = phrase{"Something that you can no longer see ({topic})", "더 이상 볼 수 없는 항목입니다 ({topic})"}

// Sentence says what a notification tells.
func Sentence(language string, n *apiv1.Notification) string {
	said, known := topics[n.GetTopic()]
	switch {
	case n.GetAbout().GetName() == "":
		return filled(gone.in(language), n)
	case !known:
		return filled("{topic} {about}", n)
	}
	return filled(said.in(language), n)
}

// Mail is a notification as a mail to a person: a subject, and a text of some lines.
func Mail(language, federation string, n *apiv1.Notification) (subject, text string) {
	subject = "[Naru] " + Sentence(language, n)
	var b strings.Builder
	line := func(s string) { b.WriteString(s + "\n") }
	line(Sentence(language, n) + ".")
	line("")
	facts := map[string]string{"project": n.GetProject(), "zone": n.GetZone(), "by": n.GetBy()}
	for _, p := range n.GetParameters() {
		if facts[p.GetKey()] == "" {
			facts[p.GetKey()] = p.GetValue()
		}
	}
	for _, l := range labels {
		if v := clean(facts[l.key]); v != "" {
			line(l.in(language) + ": " + v)
		}
	}
	if next := topics[n.GetTopic()].next; next != "" && n.GetAbout().GetName() != "" {
		line("")
		line("  " + filled(next, n))
	}
	line("")
	line("-- ")
	line("Naru, " + clean(federation))
	return subject, b.String()
}

// filled puts what a notification says into the braces of a text, each once: what stands in it is not looked at again.
func filled(text string, n *apiv1.Notification) string {
	pairs := []string{"{topic}", clean(n.GetTopic()), "{about}", clean(n.GetAbout().GetName())}
	for _, p := range n.GetParameters() {
		pairs = append(pairs, "{"+p.GetKey()+"}", clean(inDays(p.GetValue())))
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// inDays is a time as people read it, where a value is one.
func inDays(value string) string {
	if t, err := time.Parse(time.RFC3339, value); err == nil {
		return t.UTC().Format("2006-01-02 15:04 UTC")
	}
	return value
}

// Within reports whether a topic is one of those that are named: request.approved, or request.* for all of a kind.
func Within(topic string, named []string) bool {
	return slices.ContainsFunc(named, func(name string) bool {
		kind, all := strings.CutSuffix(name, "*")
		return topic == name || all && strings.HasPrefix(topic, kind)
	})
}

// Unknown is the first of those named that names no topic; empty where each does.
func Unknown(named []string) string {
	for _, name := range named {
		if !slices.ContainsFunc(Topics(), func(topic string) bool { return Within(topic, []string{name}) }) {
			return name
		}
	}
	return ""
}

// clean is a text in one line, without what controls a terminal or turns the direction of writing.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\r', r == '\t', unicode.Is(unicode.Zl, r), unicode.Is(unicode.Zp, r):
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}
