"""
What a crowd says, and what it is called.

Decides words only. Names and comments are in the manner of Chinese live-commerce rooms, with emoji sequences, wide
digits and mixed scripts on purpose: they must survive the way through the room unchanged. All of it is text that
cleaning leaves as it is (NFC, nothing invisible but the joiner inside emoji), so it can be compared byte for byte.
"""

import random
from typing import Final


def _split(text: str) -> tuple[str, ...]:
    """Return the phrases of `text`, which stand between slashes."""
    return tuple(" ".join(phrase.split()) for phrase in text.split("/"))


SURNAMES: Final = tuple(
    "王李张刘陈杨黄赵周吴徐孙马朱胡郭何林高罗郑梁谢宋唐许韩冯邓曹彭曾肖田董潘袁蔡蒋余于杜叶程魏苏吕丁任沈"
)

GIVEN_NAMES: Final = _split(
    """
    小雨 / 子涵 / 思思 / 佳怡 / 晓明 / 建国 / 秀英 / 志强 / 美玲 / 海燕 / 雪梅 / 文博 / 俊杰 / 欣怡 /
    梓萱 / 浩然 / 雨桐 / 一诺 / 诗涵 / 若曦 / 春花 / 国庆 / 丽丽 / 婷婷 / 明月 / 安安 / 可可 / 乐乐 /
    阿强 / 大勇 / 慧敏 / 玉兰 / 金凤 / 嘉豪 / 宇航 / 静怡 / 晨曦 / 梦瑶 / 紫萱 / 天宇
    """
)

NICKNAMES: Final = _split(
    """
    爱吃橙子的猫 / 春风十里 / 快乐小鱼 / 平安是福 / 岁月静好 / 花开富贵 / 甜甜圈🍩 / 月亮邮递员 /
    北方的狼 / 一只柠檬🍋 / 奶茶三分糖 / 知足常乐 / 豆豆妈妈 / 果果的妈 / 阳光总在风雨后 / 慢慢来 /
    夏天的风 / 山里人家 / 桃子汽水🍑 / 云朵棉花糖 / 小确幸 / 糯米团子 / 星河入梦 / 追光的人 /
    南方有嘉木 / 早睡早起 / 今天不加班 / 攒钱买房 / 隔壁老王 / 向日葵🌻 / 静待花开 / 大橘为重🐱 /
    随便逛逛 / 热爱生活 / 小太阳☀️ / 听雨轩 / 江南烟雨 / 老张修车 / 全村的希望 / 没睡醒 / Lucky幸运星 /
    Amy艾米 / CoCo酱 / KK / Momo
    """
)

GOODS: Final = _split(
    """
    铁观音 / 清香铁观音 / 安溪铁观音 / 普洱 / 熟普 / 古树普洱 / 茶饼 / 椴树蜜 / 蜂蜜 / 原蜜 / 脐橙 / 赣南脐橙 /
    建盏 / 主人杯 / 挂面 / 空心挂面 / 茶点 / 茶点礼盒 / 礼盒 / 一号链接
    """
)

#: Comments that stand alone.
_ANYTIME: Final = _split(
    """
    来了来了 / 主播好 / 晚上好呀🌙 / 第一次来，支持一下 / 老粉报到✋ / 前排围观 / 刚进来，讲到哪了？ /
    主播好漂亮 / 主播今天气色真好 / 主播嗓子都哑了，喝口水吧 / 声音好小，能大点吗 / 画面有点卡 /
    现在不卡了 / 多少钱? / 什么价？ / 价格打在公屏上 / 链接在哪里 / 几号链接？ / 上链接！ /
    上链接上链接上链接 / 已拍! / 已拍已付款 / 拍了两份 / 拍了三单，给爸妈也带一份 / 付款成功✅ /
    拍好了，快点发货哦 / 手慢了😭 / 没抢到 / 还有库存吗 / 能补货吗 / 再上一点吧 / 加库存加库存 /
    还有券吗 / 券怎么领 / 满减能叠加吗 / 包邮吗？ / 新疆包邮吗 / 西藏能发吗 / 海南发货吗 / 几天能到 /
    发什么快递 / 可以发顺丰吗 / 今天能发货吗 / 支持七天无理由吗 / 有运费险吗 / 坏了包赔吗 / 怎么退货 /
    售后找谁 / 客服在吗 / 有发票吗 / 有没有小份的 / 有礼盒装吗 / 送人合适吗 / 要放冰箱吗 /
    小孩可以吃吗 / 老人用方便吗 / 晚上喝会睡不着吗 / 保质期多久 / 是今年的新货吗 / 产地是哪里 / 是正品吧 /
    有质检报告吗 / 看看细节 / 近一点看看 / 背面也看一下 / 这个怎么泡 / 几克一泡合适 /
    苦不苦 / 耐泡吗 / 能泡几道 / 有几种口味 / 红茶有吗 / 这个杯子好看 / 红色喜庆🧧 /
    真的好用，我回购了 / 已经回购第三次了 / 上次买的很满意 / 家里老人很喜欢 / 同事推荐来的 /
    闺蜜拉我来的 / 朋友分享过来的 / 比超市便宜 / 比实体店划算多了 / 这个价可以了 / 再便宜点呗 /
    能不能送个小样 / 有赠品吗 / 赠品是什么 / 什么时候开秒杀 / 秒杀几点开始⏰ / 红包什么时候发 /
    等红包🧧 / 抢到了8块8！ / 抢了个寂寞 / 手气最佳是谁 / 福袋呢 / 666 / ６６６ / 哈哈哈哈 /
    笑死我了🤣 / 太真实了 / 说得对 / 学到了 / 涨知识了 / 点赞点赞👍 / ❤️❤️❤️ / 冲冲冲 / 冲鸭🦆 /
    家人们冲 / 买它！ / 闭眼入 / 种草了🌱 / 剁手了 / 钱包空空 / 等发工资再来 / 先收藏 / 加购了 /
    考虑一下 / 讲一下怎么用 / 重新讲一下吧 / 刚才那款再说说 / 下一个是什么 / 预告一下 / 明天还播吗 /
    几点下播 / 每天都来看 / 主播辛苦了🌹 / 助理小姐姐也好看 / 背景音乐好好听 / 这是什么歌 / 灯光好暖 /
    后面的狗狗好可爱🐶 / 👨‍👩‍👧‍👦 全家都在看 / 👍🏽 支持 / 支持国货🇨🇳 / 助农必须支持 /
    支持家乡特产 / 山东的来了 / 四川人报到 / 东北老铁到 / 广东的在吗 / 江西老表顶一下 / 坐标上海 /
    下班路上看 / 一边做饭一边看 / 哄完娃来看直播 / 失眠的人在这里 / 加油！ / Nice 👌 / so cute 🥰 /
    OK 已下单 / yyds / 绝绝子 / 真香 / 爱了爱了 / 可以可以 / 妥了 / 安排上
    """
)

#: Comments about one of the goods.
_ABOUT: Final = _split(
    """
    {goods}多少钱？ / {goods}还有吗 / {goods}讲一下 / {goods}已拍 / 想要{goods} /
    {goods}上次买过，好用 / {goods}怎么选 / {goods}有优惠吗 / {goods}几号链接 / {goods}看着不错 /
    {goods}是哪里产的 / 等{goods}等了一晚上 / {goods}能便宜点吗 / {goods}给我留一单 /
    {goods}质量怎么样？ / 有人买过{goods}吗
    """
)

#: Comments that answer another one.
ANSWERS: Final = _split(
    """
    同问 / 我也想知道 / 买过，不错的 / 包邮的 / 看左下角小黄车 / 主播刚讲过 / 一号链接 /
    有券的，点头像领 / 我拍了两份 / 放心买 / 刚收到，很新鲜 / 确实 / +1 / 哈哈哈我也是 / 三天就到了 /
    有运费险 / 谢谢🙏 / 真的吗 / 信你一次 / 蹲一个
    """
)

#: What winners say, by what they won.
BOASTS: Final = {
    "claim": (
        "抢到了！！",
        "秒到了✌️",
        "手速可以💪",
        "抢到一份，谢谢主播",
        "这价格抢到就是赚到",
        "秒杀成功✅",
    ),
    "grab": ("抢到红包了🧧", "谢谢老板🧧", "手气一般哈哈", "红包到手～", "谢谢主播的红包❤️", "又抢到了嘿嘿"),
}

COMMENTS: Final = _ANYTIME + tuple(pattern.format(goods=goods) for pattern in _ABOUT for goods in GOODS)

NOTICES: Final = (
    "今晚八点整点秒杀，先关注再下单！",
    "满 199 减 30，券在左下角 🎫",
    "全场包邮（偏远地区除外）",
    "下单备注“直播间”，送小样一份 🎁",
    "第 3 轮红包 21:00 开抢 🧧",
    "发货时间：付款后 48 小时内",
    "理性消费，不刷屏，祝大家购物愉快",
    "主播喝口水，马上回来 ☕",
)


def viewer_name(rng: random.Random) -> str:
    """Return a name: every second one a nickname, as in real rooms."""
    if rng.random() < 0.5:
        return rng.choice(NICKNAMES)
    return rng.choice(SURNAMES) + rng.choice(GIVEN_NAMES)
