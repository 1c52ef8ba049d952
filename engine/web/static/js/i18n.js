/**
 * Words of the two pages, Chinese and English.
 *
 * `?lang=en` switches to English; Chinese is the default. A text may hold `{name}` places. Both dictionaries have the
 * same keys. Static texts in the pages carry `data-i18n` (text), `data-i18n-label` (aria-label and title) or
 * `data-i18n-placeholder` and are written here.
 */

const zh = {
  "app.viewer": "{room} · 直播间", "app.console": "{room} · 中控台",
  "lang.other": "EN", "lang.switch": "Switch to English",

  "state.scheduled": "未开播", "state.live": "直播中", "state.paused": "暂停中", "state.closing": "收尾中", "state.closed": "已结束",
  "scene.scheduled": "直播即将开始", "scene.scheduled.at": "{time} 开播", "scene.paused": "主播离开一下，马上回来",
  "scene.closing": "直播正在收尾", "scene.closed": "直播已结束", "scene.closed.sum": "本场 {likes} 次点赞 · 最高 {peak} 人同看",
  "role.viewer": "观众", "role.agent": "客服", "role.moderator": "房管", "role.streamer": "主播", "role.owner": "店主",

  "viewer.online": "{n} 在看", "viewer.likes": "{n} 本场点赞", "viewer.notice": "公告", "viewer.notice.open": "查看公告",
  "viewer.comments": "评论", "viewer.arrived": "来了", "viewer.arrived.via": "通过分享来了",
  "viewer.thinned": "评论太热闹，略过了 {n} 条", "viewer.newer": "{n} 条新评论", "viewer.grabbed": "抢到 {yuan} 元红包",
  "viewer.welcome": "欢迎来到直播间，聊聊你想看的好物吧", "viewer.reply": "回复 {name}", "viewer.reply.cancel": "取消回复",
  "viewer.placeholder": "说点什么…", "viewer.placeholder.muted_all": "全员禁言中",
  "viewer.placeholder.closed": "直播未在进行", "viewer.placeholder.offline": "连接中…", "viewer.send": "发送", "viewer.like": "点赞", "viewer.share": "分享",
  "viewer.shelf": "商品橱窗", "viewer.shelf.n": "全部商品 · {n}", "viewer.shelf.empty": "主播还没有上架商品", "viewer.explaining": "讲解中",
  "viewer.soldout": "已抢光", "viewer.buy": "去购买", "viewer.look": "看看", "viewer.close": "关闭",
  "viewer.muted.until": "你已被禁言至 {time}", "viewer.muted.forever": "你已被禁言", "viewer.muted_all": "主播开启了全员禁言", "viewer.unmuted": "禁言已解除，可以发言了",

  "demo.viewer": "茶友{n}号", "demo.streamer": "主播小满",

  "conn.connecting": "正在连接…", "conn.waiting": "网络不稳，正在重连…", "conn.online": "已连接", "conn.closed": "连接已断开",
  "end.4400.t": "版本不兼容", "end.4400": "请刷新页面后重试", "end.4401.t": "无法进入直播间", "end.4401": "入场凭证无效，请从活动入口重新进入",
  "end.4402.t": "登录已过期", "end.4402": "请从活动入口重新进入", "end.4403.t": "无法进入直播间", "end.4403": "你已被移出并禁止进入本直播间",
  "end.4404.t": "没有找到直播间", "end.4404": "它可能已经下架，或链接有误", "end.4410.t": "你已被请出直播间", "end.4410": "请遵守直播间公约，稍后可以重新进入",
  "end.4411.t": "直播已结束", "end.4411": "谢谢观看，下次再见", "end.4429.t": "在别处打开得太多", "end.4429": "本页已断开，可以在这里继续观看",
  "end.other.t": "连接已断开", "end.other": "请稍后重试（{code}）", "end.token.t": "需要入场链接", "end.token": "请从商家发给你的链接进入直播间", "end.retry": "重新进入",

  "err.bad_frame": "数据格式有误", "err.bad_command": "内容有误，请检查后再试", "err.unknown_command": "服务端还不支持这个功能", "err.not_joined": "还没有进入直播间",
  "err.already_joined": "已经在直播间里", "err.unauthorized": "登录凭证无效", "err.forbidden": "没有权限这样做", "err.room_not_found": "没有找到直播间",
  "err.room_not_live": "直播未在进行，暂时不能操作", "err.rate_limited": "太快啦，{s} 秒后再试", "err.too_long": "内容太长了", "err.blocked_text": "内容包含不合适的词语",
  "err.muted": "你已被禁言", "err.not_found": "目标不存在或已被删除", "err.not_started": "还没有开始", "err.ended": "已经结束", "err.sold_out": "手慢了，已抢光",
  "err.sold_out.maybe": "暂时抢光，未付款的订单可能释放库存", "err.limit_reached": "已达到限购数量", "err.not_eligible": "暂不符合参与条件", "err.empty": "手慢了，红包派完了",
  "err.bad_quantity": "数量有误", "err.conflict": "与最新状态冲突，请刷新后再试", "err.paused": "活动暂停中", "err.overloaded": "人太多了，请稍后再试",
  "err.unavailable": "服务暂时不可用", "err.outcome_unknown": "结果未知，请稍后查看", "err.disconnected": "网络断开，请稍后再试",

  "sale.title": "限时秒杀", "sale.starts": "距开抢", "sale.soon": "即将开抢", "sale.claim": "立即抢", "sale.claiming": "抢购中…", "sale.pay": "去支付",
  "sale.paid": "已抢到", "sale.soldout": "已抢光", "sale.maybe": "还有机会", "sale.paused": "活动暂停", "sale.ended": "已结束", "sale.left": "仅剩 {n} 件", "sale.taken": "已抢 {p}%", "sale.limit": "每人限 {n} 件",
  "order.title": "确认订单", "order.held": "已为你锁定，请尽快支付", "order.qty": "数量 × {n}", "order.amount": "应付", "order.payby": "剩余支付时间", "order.pay": "模拟支付", "order.pay.elsewhere": "请在商城的订单页完成支付",
  "order.cancel": "放弃订单", "order.paid": "支付成功，恭喜抢到！", "order.cancelled": "订单已取消", "order.expired": "超时未支付，订单已关闭", "order.refunded": "订单已退款", "order.again": "你已经抢到过了", "order.failed": "支付没有成功：{why}",
  "packet.title": "主播发来的红包", "packet.sub": "{n} 个红包 · 共 {yuan} 元", "packet.open": "开", "packet.opens": "后开抢", "packet.won": "恭喜抢到", "packet.unit": "元", "packet.again": "你已经领过这个红包",
  "packet.empty": "手慢了，红包派完了", "packet.closed": "红包已结束", "packet.left": "还剩 {n} 个", "packet.best": "手气最佳 {name} {yuan} 元", "packet.label": "红包", "packet.got": "已领 {yuan}",
  "share.title": "分享直播间", "share.text": "把链接发给好友，好友到场就计入你的邀请榜", "share.copy": "复制链接", "share.copied": "链接已复制", "share.link": "分享链接", "share.rank": "邀请榜", "share.me": "我邀请了 {n} 人 · 第 {rank} 名",
  "share.me.none": "还没有好友通过你的链接到场", "share.empty": "榜单还空着，快来当第一名", "share.count": "{n} 人",

  "console.title": "中控台", "console.viewer": "打开观众页", "console.open": "开播", "console.pause": "暂停", "console.resume": "恢复", "console.close": "结束直播",
  "console.close.ask": "结束后不能重新开播，观众将离开直播间。确定结束吗？", "console.ban.ask": "封禁后 {name} 不能再进入本直播间，确定吗？", "console.remove.ask": "确定把「{title}」从橱窗下架吗？", "console.end.ask": "立即结束这场秒杀？已锁定的订单不受影响。", "console.cancel.ask": "立即结束这个红包？剩余金额会退回。", "console.yes": "确定", "console.no": "取消",
  "kpi.online": "当前在线", "kpi.peak": "最高在线", "kpi.viewers": "累计观众", "kpi.likes": "点赞", "kpi.comments": "评论", "kpi.shares": "分享到场", "kpi.sold": "成交金额", "kpi.orders": "订单 锁定 {held} · 已付 {paid}", "kpi.permin": "+{n} / 分钟",
  "notice.title": "公告", "notice.placeholder": "写一条公告，所有观众马上看到", "notice.save": "发布", "notice.clear": "清空", "notice.bytes": "{n} / 300 字节", "notice.version": "版本 {v}", "notice.none": "还没有公告",
  "notice.conflict": "公告已被别人改成版本 {v}：", "notice.theirs": "用他的", "notice.mine": "仍发布我的",
  "shelf.title": "商品橱窗", "shelf.add": "上架商品", "shelf.edit": "修改商品", "shelf.id": "编号", "shelf.name": "名称", "shelf.price": "价格 ¥", "shelf.cover": "封面链接", "shelf.url": "购买链接", "shelf.sort": "排序", "shelf.actions": "操作", "shelf.save": "保存", "shelf.cancel": "取消",
  "shelf.explain": "讲解", "shelf.unexplain": "结束讲解", "shelf.remove": "下架", "shelf.up": "上移", "shelf.down": "下移", "shelf.empty": "还没有商品，点右上角上架", "shelf.soldout": "已抢光", "shelf.optional": "https://… 可不填",
  "form.price": "请填写正确的价格，最多两位小数",
  "live.title": "实时评论", "live.placeholder": "以主播身份发言…", "live.pin": "置顶", "live.unpin": "取消置顶", "live.delete": "删除", "live.mute": "禁言", "live.mute.60": "禁言 1 分钟", "live.mute.600": "禁言 10 分钟", "live.mute.0": "永久禁言", "live.kick": "请出", "live.ban": "封禁", "live.more": "更多操作", "live.thinned": "略过 {n} 条",
  "muteall.label": "全员禁言", "muteall.on": "已开启，只有主播和房管可以发言",
  "people.title": "管理名单", "people.empty": "没有被禁言或移出的观众", "people.muted": "禁言至 {time}", "people.muted.forever": "永久禁言", "people.kicked": "已请出", "people.banned": "已封禁", "people.unmute": "解除禁言", "people.unban": "解除封禁", "people.forget": "移除记录",
  "log.title": "操作日志", "log.empty": "你的每一步操作和结果都记在这里", "log.ok": "成功", "log.pending": "执行中",
  "camp.title": "活动", "camp.seckill": "限时秒杀", "camp.packet": "发红包", "camp.audit": "对账",
  "camp.item": "商品", "camp.price": "秒杀价 ¥", "camp.stock": "库存", "camp.per": "每人限购", "camp.start": "开抢", "camp.start.now": "立即", "camp.start.10": "10 秒后", "camp.start.30": "30 秒后", "camp.start.60": "1 分钟后", "camp.start.300": "5 分钟后", "camp.minutes": "持续（分钟）", "camp.hold": "支付时限（秒）", "camp.schedule": "安排秒杀",
  "camp.total": "总金额 ¥", "camp.shares": "个数", "camp.split": "分法", "camp.lucky": "拼手气", "camp.even": "均分", "camp.min": "单个最低（分）", "camp.opens": "开抢", "camp.expires": "有效期（秒）", "camp.send": "发红包",
  "camp.end": "结束", "camp.cancel": "撤回", "camp.stock.now": "剩 {left} · 锁定 {held} · 售出 {sold} / {stock}", "camp.packet.now": "已抢 {grabbed} / {shares} · 共 ¥{yuan}", "camp.needitem": "请先上架商品",
  "camp.holds": "账目平衡", "camp.broken": "账目不平！", "camp.audit.sale": "{id}：库存 {stock} = 剩 {left} + 锁定 {held} + 售出 {sold}", "camp.audit.packet": "{id}：{total} 分 = 已派 {granted} + 剩 {left} + 退回 {refunded}", "camp.audit.empty": "还没有活动可以对账",
  "sale.state.scheduled": "待开抢", "sale.state.open": "抢购中", "sale.state.sold_out": "已抢光", "sale.state.paused": "暂停", "sale.state.ended": "已结束",
  "packet.state.scheduled": "待开抢", "packet.state.open": "可抢", "packet.state.empty": "已抢完", "packet.state.closed": "已结束",
};

const en = {
  "app.viewer": "{room} · Live", "app.console": "{room} · Console",
  "lang.other": "中文", "lang.switch": "切换到中文",

  "state.scheduled": "Not started", "state.live": "Live", "state.paused": "Paused", "state.closing": "Closing", "state.closed": "Ended",
  "scene.scheduled": "Starting soon", "scene.scheduled.at": "Live at {time}", "scene.paused": "The host will be right back",
  "scene.closing": "The show is wrapping up", "scene.closed": "The show has ended", "scene.closed.sum": "{likes} likes · {peak} watched together",
  "role.viewer": "Viewer", "role.agent": "Support", "role.moderator": "Mod", "role.streamer": "Host", "role.owner": "Owner",

  "viewer.online": "{n} watching", "viewer.likes": "{n} likes", "viewer.notice": "Notice", "viewer.notice.open": "Read the notice",
  "viewer.comments": "Comments", "viewer.arrived": "joined", "viewer.arrived.via": "joined through a share",
  "viewer.thinned": "So lively that {n} comments were skipped", "viewer.newer": "{n} new comments", "viewer.grabbed": "won ¥{yuan} from the red packet",
  "viewer.welcome": "Welcome! Tell us what you would like to see", "viewer.reply": "Reply to {name}", "viewer.reply.cancel": "Cancel the reply",
  "viewer.placeholder": "Say something…", "viewer.placeholder.muted_all": "Everyone is muted",
  "viewer.placeholder.closed": "The room is not live", "viewer.placeholder.offline": "Connecting…", "viewer.send": "Send", "viewer.like": "Like", "viewer.share": "Share",
  "viewer.shelf": "Shelf", "viewer.shelf.n": "All items · {n}", "viewer.shelf.empty": "Nothing on the shelf yet", "viewer.explaining": "On show",
  "viewer.soldout": "Sold out", "viewer.buy": "Buy", "viewer.look": "View", "viewer.close": "Close",
  "viewer.muted.until": "You are muted until {time}", "viewer.muted.forever": "You are muted", "viewer.muted_all": "The host muted everyone", "viewer.unmuted": "You can comment again",

  "demo.viewer": "Guest {n}", "demo.streamer": "Host",

  "conn.connecting": "Connecting…", "conn.waiting": "Weak network, reconnecting…", "conn.online": "Connected", "conn.closed": "Disconnected",
  "end.4400.t": "Version mismatch", "end.4400": "Reload the page and try again", "end.4401.t": "Cannot enter the room", "end.4401": "The ticket is not valid. Please use your invitation again",
  "end.4402.t": "Your ticket has expired", "end.4402": "Please use your invitation again", "end.4403.t": "Cannot enter the room", "end.4403": "You were removed and banned from this room",
  "end.4404.t": "Room not found", "end.4404": "It may be gone, or the link is wrong", "end.4410.t": "You were asked to leave", "end.4410": "Please mind the house rules. You may come back in a while",
  "end.4411.t": "The show has ended", "end.4411": "Thanks for watching. See you next time", "end.4429.t": "Open in too many places", "end.4429": "This page was disconnected. You can go on watching here",
  "end.other.t": "Disconnected", "end.other": "Please try again later ({code})", "end.token.t": "You need an invitation link", "end.token": "Please enter through the link the shop sent you", "end.retry": "Enter again",

  "err.bad_frame": "The message could not be read", "err.bad_command": "Something is not right with that. Please check it", "err.unknown_command": "The server does not support this yet", "err.not_joined": "Not in the room yet",
  "err.already_joined": "Already in the room", "err.unauthorized": "The ticket is not valid", "err.forbidden": "You may not do that", "err.room_not_found": "Room not found",
  "err.room_not_live": "The room is not live right now", "err.rate_limited": "Too fast. Try again in {s} s", "err.too_long": "That is too long", "err.blocked_text": "That contains words not allowed here",
  "err.muted": "You are muted", "err.not_found": "It does not exist or was deleted", "err.not_started": "Not started yet", "err.ended": "Already over", "err.sold_out": "Too late, sold out",
  "err.sold_out.maybe": "Sold out for now. Unpaid orders may come back", "err.limit_reached": "You reached the limit per viewer", "err.not_eligible": "You do not qualify yet", "err.empty": "Too late, the packet is empty",
  "err.bad_quantity": "That quantity is not valid", "err.conflict": "Somebody changed it first. Please look again", "err.paused": "The sale is paused", "err.overloaded": "Too busy, please try again",
  "err.unavailable": "The service is unavailable for a moment", "err.outcome_unknown": "The outcome is unknown. Please look again later", "err.disconnected": "Disconnected. Please try again",

  "sale.title": "Flash sale", "sale.starts": "Starts in", "sale.soon": "Soon", "sale.claim": "Grab it", "sale.claiming": "Grabbing…", "sale.pay": "Pay now",
  "sale.paid": "It's yours", "sale.soldout": "Sold out", "sale.maybe": "May return", "sale.paused": "Paused", "sale.ended": "Over", "sale.left": "Only {n} left", "sale.taken": "{p}% taken", "sale.limit": "Limit {n} each",
  "order.title": "Your order", "order.held": "Held for you. Please pay in time", "order.qty": "Quantity × {n}", "order.amount": "To pay", "order.payby": "Time left to pay", "order.pay": "Demo payment", "order.pay.elsewhere": "Please pay on the shop's order page",
  "order.cancel": "Give it up", "order.paid": "Paid. Congratulations!", "order.cancelled": "The order is cancelled", "order.expired": "Not paid in time, the order is closed", "order.refunded": "The order was refunded", "order.again": "You already have one", "order.failed": "The payment failed: {why}",
  "packet.title": "A red packet from the host", "packet.sub": "{n} shares · ¥{yuan} in all", "packet.open": "GO", "packet.opens": "until it opens", "packet.won": "You won", "packet.unit": "yuan", "packet.again": "You already opened this one",
  "packet.empty": "Too late, it is empty", "packet.closed": "This red packet is over", "packet.left": "{n} left", "packet.best": "Luckiest: {name} ¥{yuan}", "packet.label": "Packet", "packet.got": "Won {yuan}",
  "share.title": "Share this room", "share.text": "Friends who come through your link count on the board", "share.copy": "Copy link", "share.copied": "Link copied", "share.link": "Share link", "share.rank": "Share board", "share.me": "You invited {n} · rank {rank}",
  "share.me.none": "Nobody has come through your link yet", "share.empty": "The board is empty. Be the first", "share.count": "{n}",

  "console.title": "Console", "console.viewer": "Viewer page", "console.open": "Go live", "console.pause": "Pause", "console.resume": "Resume", "console.close": "End the show",
  "console.close.ask": "A closed room cannot be opened again and its viewers leave. End the show?", "console.ban.ask": "{name} will not be able to enter this room again. Ban?", "console.remove.ask": "Take “{title}” off the shelf?", "console.end.ask": "End this sale now? Held orders stay as they are.", "console.cancel.ask": "End this red packet now? What is left is refunded.", "console.yes": "Yes", "console.no": "Cancel",
  "kpi.online": "Online", "kpi.peak": "Peak", "kpi.viewers": "Viewers so far", "kpi.likes": "Likes", "kpi.comments": "Comments", "kpi.shares": "Shared arrivals", "kpi.sold": "Sold", "kpi.orders": "Orders: {held} held · {paid} paid", "kpi.permin": "+{n} / min",
  "notice.title": "Notice", "notice.placeholder": "Write a notice that every viewer sees at once", "notice.save": "Publish", "notice.clear": "Clear", "notice.bytes": "{n} / 300 bytes", "notice.version": "version {v}", "notice.none": "No notice yet",
  "notice.conflict": "Somebody else changed the notice to version {v}:", "notice.theirs": "Take theirs", "notice.mine": "Publish mine anyway",
  "shelf.title": "Shelf", "shelf.add": "Add an item", "shelf.edit": "Edit the item", "shelf.id": "Id", "shelf.name": "Title", "shelf.price": "Price ¥", "shelf.cover": "Cover URL", "shelf.url": "Shop URL", "shelf.sort": "Order", "shelf.actions": "Actions", "shelf.save": "Save", "shelf.cancel": "Cancel",
  "shelf.explain": "Show", "shelf.unexplain": "Stop showing", "shelf.remove": "Remove", "shelf.up": "Move up", "shelf.down": "Move down", "shelf.empty": "No items yet. Add one at the top right", "shelf.soldout": "Sold out", "shelf.optional": "https://… optional",
  "form.price": "Please enter an amount with at most two decimals",
  "live.title": "Live comments", "live.placeholder": "Speak as the host…", "live.pin": "Pin", "live.unpin": "Unpin", "live.delete": "Delete", "live.mute": "Mute", "live.mute.60": "Mute for 1 minute", "live.mute.600": "Mute for 10 minutes", "live.mute.0": "Mute for ever", "live.kick": "Kick", "live.ban": "Ban", "live.more": "More actions", "live.thinned": "{n} skipped",
  "muteall.label": "Mute everyone", "muteall.on": "On: only the host and moderators can comment",
  "people.title": "Muted and removed", "people.empty": "Nobody is muted or removed", "people.muted": "Muted until {time}", "people.muted.forever": "Muted for ever", "people.kicked": "Kicked", "people.banned": "Banned", "people.unmute": "Unmute", "people.unban": "Unban", "people.forget": "Remove from the list",
  "log.title": "Activity", "log.empty": "Everything you do and how it went is listed here", "log.ok": "done", "log.pending": "running",
  "camp.title": "Campaigns", "camp.seckill": "Flash sale", "camp.packet": "Red packet", "camp.audit": "Audit",
  "camp.item": "Item", "camp.price": "Sale price ¥", "camp.stock": "Stock", "camp.per": "Limit each", "camp.start": "Starts", "camp.start.now": "Now", "camp.start.10": "In 10 s", "camp.start.30": "In 30 s", "camp.start.60": "In 1 min", "camp.start.300": "In 5 min", "camp.minutes": "Lasts (minutes)", "camp.hold": "Time to pay (s)", "camp.schedule": "Schedule",
  "camp.total": "Total ¥", "camp.shares": "Shares", "camp.split": "Split", "camp.lucky": "Lucky", "camp.even": "Even", "camp.min": "Smallest (cents)", "camp.opens": "Opens", "camp.expires": "Valid (s)", "camp.send": "Send",
  "camp.end": "End", "camp.cancel": "Cancel", "camp.stock.now": "{left} left · {held} held · {sold} sold / {stock}", "camp.packet.now": "{grabbed} / {shares} taken · ¥{yuan}", "camp.needitem": "Add an item first",
  "camp.holds": "Books balance", "camp.broken": "Books do NOT balance!", "camp.audit.sale": "{id}: stock {stock} = {left} left + {held} held + {sold} sold", "camp.audit.packet": "{id}: {total} cents = {granted} granted + {left} left + {refunded} refunded", "camp.audit.empty": "No campaign to audit yet",
  "sale.state.scheduled": "Scheduled", "sale.state.open": "Open", "sale.state.sold_out": "Sold out", "sale.state.paused": "Paused", "sale.state.ended": "Over",
  "packet.state.scheduled": "Scheduled", "packet.state.open": "Open", "packet.state.empty": "Empty", "packet.state.closed": "Over",
};

export const DICTIONARIES = { zh, en };

let words = zh;

/** Choose the language from the query string and write the page's static texts. Call once, before anything is shown. */
export function setUpLanguage() {
  const english = new URLSearchParams(location.search).get("lang") === "en";
  words = english ? en : zh;
  document.documentElement.lang = english ? "en" : "zh-CN";
  for (const node of document.querySelectorAll("[data-i18n]")) node.append(t(node.dataset.i18n));
  for (const node of document.querySelectorAll("[data-i18n-placeholder]")) node.placeholder = t(node.dataset.i18nPlaceholder);
  for (const node of document.querySelectorAll("[data-i18n-label]")) {
    node.setAttribute("aria-label", t(node.dataset.i18nLabel));
    if (node.matches("button, a")) node.title = t(node.dataset.i18nLabel);
  }
  for (const node of document.querySelectorAll("[data-language-switch]")) {
    const there = new URL(location.href);
    if (english) there.searchParams.delete("lang");
    else there.searchParams.set("lang", "en");
    node.href = there.pathname + there.search;
  }
}

/** Return the words under `key` with its `{places}` filled. */
export function t(key, values = {}) {
  const text = words[key];
  if (text === undefined) return key;
  return text.replace(/\{(\w+)\}/g, (place, name) => (name in values ? String(values[name]) : place));
}

/** Say a command's error in words, by its code; an unknown code is shown with the server's own message. */
export function errorText(err) {
  if (err.code === "rate_limited") return t("err.rate_limited", { s: Math.max(1, Math.ceil((err.retry_ms || 1000) / 1000)) });
  if (err.code === "sold_out" && err.final === false) return t("err.sold_out.maybe");
  if (err.code === "muted" && err.all) return t("viewer.muted_all");
  const key = `err.${err.code}`;
  return key in words ? t(key) : `${err.code || err.name} ${err.message || ""}`.trim();
}
