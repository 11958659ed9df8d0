"""What happens in the embedded stories: openings, plots and endings, as templates of `grammar.py`."""

import re

ROLES = {
    "hero": "name",
    "friend": "name",
    "elder": "elder",
    "pet": "animal",
    "prize": "toy",
    "home": "place",
    "shade": "color",
    "dish": "baked",
    "skill": "skill",
    "built": "built",
}
"""The cast, drawn once a story, with the lexeme class of each role."""

PLOT_RULES = """\
opening:
- Once upon a time, there was a {size} {hero.boy} named {hero}. {Hero.he} lived with {hero.his} {elder} in a
  {color} house near the {spot}.
- Once upon a time, in a {size} village, there lived a {trait} {hero.boy} named {hero}. {Hero.he} had a {pet}
  and a {shade} {prize}.
- {Hero} was a {trait} {hero.boy}. {Hero.his} best friend was {friend}. {Hero} and {friend} played in the
  {home} every day.
- There was once a {quality} house near the {spot}. A {size} {hero.boy} named {hero} lived there with
  {hero.his} {elder}.
- One {sunny} morning, {hero} woke up early. {Hero.his} {elder} was in the kitchen, and {hero.his} {pet} was
  under the {hideout}.
- Long ago, there was a {trait} {hero.boy} named {hero} who loved {pet.p}. {Hero} had a friend named {friend}
  who loved {thing.p}.
- {Hero} and {friend} were good friends. {Hero} had a {shade} {prize}, and {friend} had a {color} {wearable}.

time:
- One day
- One {sunny} day
- One morning
- One {sunny} morning
- One afternoon
- One night

lost_trouble:
- {time}, {hero} lost {hero.his} {shade} {prize}. {Hero.he} looked in the {place} and near the {spot}, but
  {hero.he} could not find it.
- {time}, {hero}'s {shade} {prize} was gone. {Hero} was very {upset}. "Where is my {prize}?" asked {hero}.

lost_turn:
- Then {friend} came with a big smile. "I found your {prize}," said {friend}. "It was under the {hideout}."
- At last, {hero} looked under the {hideout}. There it was! The {shade} {prize} was there, and a {pet} was
  asleep beside it.

gift_trouble:
- {time}, it was {friend}'s birthday. {Hero} wanted to give {friend} a {prize}, but {hero.he} did not have any
  money.
- {time}, {hero} wanted to make a gift for {hero.his} {elder}. "What does {elder.he} like?" {hero.he} asked
  {hero.himself}.

gift_turn:
- So {hero} made a {shade} {prize} out of paper. {Friend} opened the box and smiled. "It is the best gift
  ever!" said {friend}.
- In the end, {hero} picked {number} {color} flowers and put them in a {tool}. {Hero.his} {elder} loved them.

hurt_trouble:
- {time}, {hero} saw a {size} {pet} near the {spot}. The {pet} was hurt, and it could not walk. "Poor {pet},"
  said {hero}.
- {time}, a {size} {pet} fell into the {water}. It was wet and cold. {Hero} heard it cry and ran to help.

hurt_turn:
- {Hero} gave the {pet} some water and {a.p} {dish.p}. Soon the {pet} could walk again. It looked at {hero}
  and was not {upset}.
- {Hero} and {friend} took the {pet} to a doctor. The doctor helped it. "Your {pet} will be well soon," said
  the doctor.

broken_trouble:
- {time}, {friend} dropped {hero}'s {prize}, and it broke. {Hero} was {upset}. {Friend} hid the broken {prize}
  under the {hideout}.
- {time}, {hero} broke {hero.his} {elder}'s {shade} {tool}. {Hero} was {upset}. "What will {elder.he} say?"
  thought {hero}.

broken_turn:
- "I am sorry," said {friend}. "I will help you fix it." {Hero} and {friend} worked all day, and in the end it
  was as good as new.
- {Hero} told {hero.his} {elder} what had happened. {Elder.he} was not angry. "I am glad that you told me,"
  said {hero}'s {elder}.

share_trouble:
- {time}, {hero} had {number} {dish.p}, and {friend} had none. {Friend} was hungry and {upset}. "Can I have
  one?" asked {friend}.
- {time}, {hero}'s {elder} made a big {dish}. {Hero} wanted to eat it all, but {friend} was hungry too.

share_turn:
- {Hero} thought about {friend}. Then {hero.he} gave {friend} some of the food. They sat under a tree and ate
  together.
- "Sharing is good," said {hero}'s {elder}. So {hero} cut the {dish} with a knife and gave {friend} the bigger
  piece.

dark_trouble:
- {time}, {hero} and {friend} found a dark cave. {Hero} was scared. "Be brave," {hero.he} said to
  {hero.himself}.
- {time}, {hero} heard a loud noise in the dark. {Hero.he} hid under a blanket. "Who is there?" {hero.he}
  asked.

dark_turn:
- {Friend} lit a candle and held {hero}'s hand. In the light they saw that it was only a {size} {pet}. They
  laughed and laughed.
- {Hero} took a lamp and was brave. The noise was only a {pet} with a {dish}! {Hero} was not scared any more.

learn_trouble:
- {time}, {hero} wanted to learn to {skill}. {Hero.he} tried and tried, but it was too hard. "I cannot
  {skill}," said {hero}.
- {time}, {hero} saw {friend} {skill}. "I want to {skill} too," said {hero}. "Can you teach me?"

learn_turn:
- "Try again," said {friend}. "I will show you." {Hero} tried again every day, and in the end {hero.he} was
  proud of {hero.himself}.
- {Friend} taught {hero} how to {skill}. It took a long time, but {hero} did not stop. {Hero.his} {elder}
  clapped.

race_trouble:
- {time}, {hero} and {friend} had a race to the {spot}. {Hero} ran fast, but {friend} ran faster.
- {time}, there was a big race in the village. {Hero} wanted to win a {shade} {prize}. All the children came
  to the {home}.

race_turn:
- Then {friend} fell down. {Hero} stopped and helped {friend.him}. They walked to the end of the race hand in
  hand.
- {Hero} did not win the race, but {hero.he} was not sad. "You ran well," said {friend}. "I am proud of you."

build_trouble:
- {time}, {hero} wanted to build a {built} in the {home}. {Hero.he} needed {number} {natural.p} and many
  sticks.
- {time}, {hero} and {friend} built a {built} with boxes. Then the wind came and blew it down. {Hero} was
  {upset}.

build_turn:
- They built the {built} again with rocks and wood. This time it was strong. They painted it {shade} and
  played inside.
- Everyone came to help. The {pet.p} brought leaves, and {friend} brought a rope. By night the {built} was
  done.

storm_trouble:
- {time}, dark clouds filled the sky, and it began to rain. {Hero} and {friend} were far from home.
- {time}, a storm came. The wind blew {hero}'s {wearable} away, and {hero.his} {pet} was lost in the rain.

storm_turn:
- They ran to an old barn and waited. When the rain stopped, the sun came out, and there was a rainbow over
  the {home}.
- {Hero}'s {elder} came with a lamp. "There you are!" {elder.he} said. {Elder.he} gave {hero} a warm blanket
  and hot milk.

grow_trouble:
- {time}, {hero} found a {size} seed. {Hero.he} put it in the ground and gave it water every day, but nothing
  grew.
- {time}, {hero} and {friend} planted {number} seeds in the {home}. A {pet} came and ate them. {Hero} was
  {upset}.

grow_turn:
- Then one day a {size} leaf came up. Weeks passed, and a {shade} flower grew. "Look!" said {hero}. "It is so
  pretty!"
- {Friend} gave {hero} one more seed. They waited and waited. In summer, a big tree with many leaves stood
  there.

thief_trouble:
- {time}, {hero}'s {elder} baked a {dish} and put it on the table. When {hero} came back, the {dish} was gone!
- {time}, a {pet} stole {friend}'s {wearable} and ran into the {home}. "Stop!" cried {friend}.

thief_turn:
- {Hero} saw a {pet} behind the {spot}. It had a {dish} in its mouth. It was only hungry, so {hero} was not
  angry.
- They followed the {pet} to its nest. It had {number} babies, and they were cold. {Friend} let them keep it.

letter_trouble:
- {time}, {hero} got a letter. It said, "Come to the {spot} and bring a {tool}." {Hero} did not know who had
  written it.
- {time}, {hero} found an old map in a {tool}. It showed a road to the {home}. "Let us go and see," said
  {friend}.

letter_turn:
- It was {friend}! {Friend.he} had hidden a {shade} {prize} there. "Surprise!" said {friend}. "It is a gift
  for you."
- At the end of the road they found a box. In the box there was a {shade} {prize} and {number} gold coins.

visit_trouble:
- {time}, {hero} went to see {hero.his} {elder} in the {home}. {Hero.he} took a {dish} with {hero.him}, but
  the road was long.
- {time}, {friend} went to a new school. {Friend.he} did not know anybody there and was {upset}. {Hero} felt
  sorry for {friend.him}.

visit_turn:
- At last, {hero} saw the door. {Hero.his} {elder} gave {hero.him} a hug. They ate the {dish} and told each
  other stories.
- "Do you want to play with us?" asked {hero}. {Friend} smiled and nodded. They played with {hero}'s {prize}
  until night.

dream_trouble:
- {time}, {hero} had a strange dream. In the dream, a {size} {pet} could talk. "Please take me to the {home},"
  it said.
- {time}, {hero} could not sleep. The moon was bright, and the stars shone over the {home}.

dream_turn:
- Then {hero} opened {hero.his} eyes. It was morning, and the {pet} sat on {hero.his} bed. Was it only a
  dream? {Hero} smiled to {hero.himself}.
- {Hero}'s {elder} sang an old song. {Hero} closed {hero.his} eyes and counted the stars until {hero.he}
  slept.

chore_trouble:
- {time}, {hero}'s room was a mess. "Clean your room before you play," said {hero.his} {elder}. {Hero} was
  {upset}.
- {time}, {hero}'s {elder} was sick and stayed in bed. {Hero} had to feed the {pet.p} and cook dinner all by
  {hero.himself}.

chore_turn:
- {Friend} held the broom, and {hero} put every {prize} on a shelf. Work was easy with a friend, and they even
  sang.
- {Hero} made hot soup and bread. "You are a big help," said {hero}'s {elder}, and soon {elder.he} felt
  better.

snow_trouble:
- {time}, snow covered the ground, and the {water} was full of ice. {Hero} had no gloves, and {hero.his}
  fingers were cold.
- {time}, {hero} and {friend} wanted to make a snowman, but they had no carrot for its nose.

snow_turn:
- {Hero} and {friend} rolled three giant balls of snow and gave the snowman a {wearable}. "He looks like
  grandpa!" said {friend}.
- {Friend} lent {hero} a pair of mittens. They rode down the {sunny} hill until the sun went behind the
  clouds.

music_trouble:
- {time}, {hero} heard music from a window. An old man played a fiddle. "I wish I could do that," said {hero}.
- {time}, the children put on a show in the {home}. {Hero} had to sing all by {hero.himself}, and {hero.his}
  voice shook.

music_turn:
- {Hero} practiced every evening. First it sounded bad, but at last it sounded sweet, and everyone danced.
- {Friend} stood up and sang along. {Hero}'s voice grew loud and clear, and the whole crowd clapped and
  cheered.

camp_trouble:
- {time}, {hero} and {friend} slept outside in a tent. Something made a strange sound, and {hero}'s heart beat
  fast.
- {time}, {hero} followed a path into the woods. Every tree looked the same, and {hero.he} was there by
  {hero.himself}.

camp_turn:
- {Hero} looked out with {hero.his} flashlight. A {size} {pet} was eating their {dish.p}! {Friend} laughed and
  gave it another.
- {Hero} climbed to the top of a tree and saw smoke. "That is our fire!" {hero.he} shouted. {Hero.he} ran all
  the way back.

shop_trouble:
- {time}, {hero} saw a {shade} {prize} in a shop window. It cost {number} coins, and {hero.his} pocket was
  empty.
- {time}, {hero}'s {elder} sent {hero.him} to buy {dish.p} and butter. {Hero} took the money and a basket.

shop_turn:
- {Hero} sold juice to thirsty neighbors all week. Finally {hero.he} could buy it for {hero.himself}, and
  {friend} went to the shop with {hero.him}.
- The old lady in the shop smiled at {hero}. "You are so polite," she said, and she put a piece of chocolate
  in the basket.

ending:
- {Hero} hugged {friend}. "Thank you," said {hero}. From that day on, {hero} and {friend} were best friends.
- That night, {hero} told {hero.his} {elder} about {friend} and the {pet}. {Hero.he} fell asleep with a smile.
- {Hero} was happy and proud of {hero.himself}. {Hero.he} learned that it is good to be kind, and {hero.his}
  {elder} was proud of {hero.him}.
- {Friend} and {hero} went home together. They ate {dish.p} and laughed about the {pet}. {Friend} was proud of
  {friend.himself}. The end.
- {Hero} and {friend} still play in the {home} today, and {hero} still has the {shade} {prize}.
- "What a day!" said {hero}'s {elder}. {Hero} smiled at {elder.him}. {Hero.he} knew that {friend} was a true
  friend.
- And {hero} never forgot what {friend} had done for {hero.him}. They lived happily ever after.
"""
"""Each plot has a rule `<plot>_trouble` and a rule `<plot>_turn`."""

PLOTS = tuple(re.findall(r"^(\w+)_trouble:$", PLOT_RULES, re.MULTILINE))
