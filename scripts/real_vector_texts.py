"""Contrast pairs, prompts and word lists of scripts/real_vectors.py, written for it."""

LANGUAGE_PAIRS = [  # question, French answer, English answer
    ("What is the capital of Italy?", "La capitale de l'Italie est Rome.", "The capital of Italy is Rome."),
    ("How is bread made?", "On mélange la farine, l'eau et la levure.", "You mix the flour, the water and the yeast."),
    ("Why do birds sing?", "Ils chantent pour défendre leur territoire.", "They sing to defend their territory."),
    ("What do cows eat?", "Les vaches mangent surtout de l'herbe.", "Cows mostly eat grass."),
    ("When does the shop open?", "Le magasin ouvre à neuf heures.", "The shop opens at nine o'clock."),
    ("Who wrote this letter?", "Ma grand-mère a écrit cette lettre.", "My grandmother wrote this letter."),
    ("Where is the station?", "La gare est derrière le vieux marché.", "The station is behind the old market."),
    ("What is a poem?", "Un poème est un texte court et rythmé.", "A poem is a short text with a rhythm."),
    ("How old is the bridge?", "Le pont a plus de deux cents ans.", "The bridge is more than two hundred years old."),
    ("What color is the house?", "La maison est blanche.", "The house is white."),
    ("What should I pack?", "Prenez un manteau chaud et de bonnes chaussures.", "Take a warm coat and good shoes."),
    ("Is the water cold?", "Oui, l'eau est très froide ce matin.", "Yes, the water is very cold this morning."),
    ("How do plants grow?", "Elles ont besoin de lumière et d'eau.", "They need light and water."),
    ("What is the moon?", "La lune est un satellite de la Terre.", "The moon is a satellite of the Earth."),
    ("What did the teacher say?", "Elle a dit que l'examen serait facile.", "She said that the exam would be easy."),
    ("Why is he late?", "Il est en retard parce que son train était plein.", "He is late because his train was full."),
    ("What is in the box?", "Il y a des livres et une lampe.", "There are books and a lamp in it."),
    ("How far is the beach?", "La plage est à dix minutes à pied.", "The beach is ten minutes away on foot."),
    ("What do you cook tonight?", "Je prépare une soupe aux légumes.", "I am making a vegetable soup."),
    ("What is history?", "L'histoire est l'étude du passé.", "History is the study of the past."),
    ("Do dogs dream?", "Oui, les chiens rêvent comme nous.", "Yes, dogs dream as we do."),
    ("What is the weather like?", "Il fait gris, mais il ne pleut pas.", "It is grey, but it does not rain."),
    ("How do I stay healthy?", "Dormez bien et marchez chaque jour.", "Sleep well and walk every day."),
    ("What is a friend?", "C'est quelqu'un qui vous écoute.", "It is someone who listens to you."),
]

SENTIMENT_PAIRS = [  # request, positive answer, negative answer
    ("Describe the room.", "The room was bright, clean and quiet.", "The room was dark, dirty and noisy."),
    ("Describe the waiter.", "He was kind, quick and attentive.", "He was rude, slow and careless."),
    ("How was the soup?", "It was delicious and perfectly seasoned.", "It was tasteless and far too salty."),
    ("Describe the film.", "A brilliant story, and I loved every minute.", "A stupid story, and I hated every minute."),
    ("How is your new phone?", "It works flawlessly and I enjoy using it.", "It keeps failing and I regret buying it."),
    ("Describe the concert.", "The singer was superb and we were happy.", "The singer was awful and we left."),
    ("How was the flight?", "Smooth, comfortable and right on time.", "Bumpy, cramped and hours late."),
    ("Describe the book.", "A charming and inspiring read.", "A boring and pointless read."),
    ("Describe the garden.", "Lovely flowers grow everywhere, a joy to see.", "Weeds grow everywhere, a sad sight."),
    ("How is the new manager?", "She is fair, patient and helpful.", "She is unfair, impatient and useless."),
    ("How was your weekend?", "Wonderful, we laughed all the time.", "Miserable, we argued all the time."),
    ("Describe the bread.", "Fresh, warm and crisp, simply perfect.", "Stale, hard and burnt, simply terrible."),
    ("How was the lesson?", "Clear, lively and very useful.", "Confusing, dull and a waste of time."),
    ("Describe the city.", "Beautiful streets and friendly people.", "Ugly streets and hostile people."),
    ("How is the coat?", "Warm, elegant and worth every penny.", "Thin, shapeless and a complete rip-off."),
    ("How did the repair go?", "They were quick and did a great job.", "They were slow and did a bad job."),
    ("Describe the beach.", "Soft sand, clear water, pure happiness.", "Rubbish everywhere, foul water, pure disgust."),
    ("How was the meeting?", "Productive and pleasant, with good results.", "Pointless and painful, with no results."),
    ("Describe the neighbor.", "A generous man whom we all like.", "A selfish man whom we all dislike."),
    ("How is the software?", "Fast, reliable and a pleasure to use.", "Slow, unreliable and a pain to use."),
    ("Describe the play.", "Excellent actors, I was delighted.", "Dreadful actors, I was disappointed."),
    ("How was the wedding?", "A magical day full of love.", "A horrible day full of fights."),
    ("Describe the coffee.", "Rich, smooth and fantastic.", "Bitter, weak and disgusting."),
    ("How is the hospital?", "The nurses are caring and I feel safe.", "The nurses are cold and I feel afraid."),
]

FORMALITY_PAIRS = [  # request, formal answer, informal answer
    ("Ask for the report.", "Could you kindly send me the report?", "hey, can you shoot me that report?"),
    ("Say you will be late.", "I regret to inform you that I shall be delayed.", "sorry, gonna be late!"),
    ("Thank someone.", "I am most grateful for your assistance.", "thanks so much, you're awesome!"),
    ("Decline an invitation.", "I must respectfully decline your invitation.", "nah, can't make it, sorry!"),
    ("Ask for a meeting.", "I would like to request a meeting at your convenience.", "wanna meet up sometime?"),
    ("Apologize.", "Please accept my sincere apologies.", "oops, my bad, didn't mean it!"),
    ("Complain about a delay.", "I wish to express my concern regarding the delay.", "ugh, what's taking so long?"),
    ("Say that you agree.", "I concur with your assessment.", "yeah, totally, you're right!"),
    ("Ask for help.", "I would appreciate your guidance in this matter.", "hey, can you help me out?"),
    ("Say goodbye.", "I remain, with kind regards, yours faithfully.", "ok bye, see ya!"),
    ("Ask about the price.", "Could you please inform me of the price?", "so how much is this stuff?"),
    ("Congratulate someone.", "Please accept my warmest congratulations.", "wow, way to go, that's so cool!"),
    ("Say you are tired.", "I find myself considerably fatigued.", "I'm so beat, gotta sleep!"),
    ("Offer food.", "May I offer you some refreshments?", "wanna grab a bite?"),
    ("Recommend a book.", "I would highly recommend this volume.", "you gotta read this, it's super fun!"),
    ("Ask to wait.", "I must ask for your patience.", "hang on a sec, ok?"),
    ("Report a problem.", "I am writing to report a malfunction.", "hey, this thing's busted!"),
    ("Say you do not know.", "I am afraid that I lack the relevant information.", "dunno, no idea, sorry!"),
    ("Invite a guest.", "We would be honored by your presence.", "come hang out with us!"),
    ("Ask for silence.", "I would kindly request silence.", "hey guys, keep it down!"),
    ("Praise a meal.", "The meal was of exceptional quality.", "that food's so yummy, wow!"),
    ("Refuse an offer.", "We are unable to accept your proposal.", "nope, that won't work for us!"),
    ("Ask for a reply.", "I look forward to receiving your response.", "hit me back when you can!"),
    ("Announce a change.", "Please be advised that the schedule has been amended.", "heads up, plans've changed!"),
]

CALIBRATION_PROMPTS = [
    "Explain why the sky is blue.", "Give me a tip for saving money.", "Write a sentence about a dog.",
    "What is a computer?", "Name three fruits and describe one.", "Tell me about your favorite season.",
    "How do I make tea?", "Write an email to a teacher.", "Describe a busy street.", "What is a good breakfast?",
    "Summarize the story of a lost ring.", "How does a bicycle work?", "Write a note to a neighbor.",
    "What makes a good movie?", "Explain what a bank does.", "Describe an old house.",
]  # fmt: skip

LANGUAGE_PROMPTS = [
    "What is photosynthesis?", "How do airplanes fly?", "Why do we sleep?", "What is a volcano?",
    "How can I learn to swim?", "What is the largest ocean?", "Describe a forest.", "What does a doctor do?",
    "How do I bake a cake?", "What is gravity?", "Why is exercise important?", "Describe a winter morning.",
    "What is money?", "How do bees make honey?", "What is a river?", "Tell me about elephants.",
    "How do I write a letter?", "What is electricity?", "Why do leaves fall?", "Describe a market.",
    "What is a library?", "How does a clock work?", "Tell me about the sun.", "What is democracy?",
    "How do I clean a window?", "What is a desert?", "Describe a cat.", "What is music?",
    "How do fish breathe?", "What is a museum?", "Tell me about trains.", "Why is water important?",
    "What is a hero?", "How do I plant a tree?", "Describe a storm.", "What is a festival?",
    "How do I make a salad?", "What is a mountain?", "Tell me about the heart.", "What is a language?",
]  # fmt: skip

SENTIMENT_TOPICS = [
    "a delayed train", "a cold dinner", "a broken elevator", "a long queue", "a rainy holiday", "a lost suitcase",
    "a noisy hotel", "a cheap umbrella", "an old car", "a crowded bus", "a strict teacher", "a late delivery",
    "a small kitchen", "a difficult exam", "a first day at work", "a parking ticket", "an empty fridge",
    "a school lunch", "a visit to the dentist", "a phone bill", "a Monday morning", "a new haircut",
    "a used laptop", "a camping trip", "a muddy path", "a family dinner", "a job interview", "a night shift",
    "a slow website", "a loud party", "a hospital visit", "a train station", "a second-hand sofa",
    "an airport", "a cold office", "a traffic jam", "a moving day", "a burnt cake", "a power cut", "a steep hill",
]  # fmt: skip

FORMALITY_PROMPTS = [
    f"Text {person} {matter}."
    for person in ("your best friend", "your brother", "a classmate", "your roommate", "your cousin")
    for matter in (
        "that you are late", "to ask for a ride", "about the party", "to say thanks",
        "that you are sick", "about a funny video", "to borrow ten dollars", "about the weekend",
    )
]  # fmt: skip

FRENCH_WORDS = set(
    "le la les un une des du et est sont dans que qui avec ce cette ces il elle nous vous ils elles je tu mais donc "
    "leur leurs ou être avoir tout tous toute aux au sur pas ne se sa ses mon ma mes votre vos notre nos plus pour par "
    "comme peut peuvent sans entre aussi quand même ont avons avez êtes suis sommes l qu".split()
) - {"plus", "pour", "par", "on", "sans", "as", "son", "sa"}  # English words or names
FRENCH_LETTERS = set("àâçéèêëîïôùûœ")
ENGLISH_WORDS = set(
    "the a an of and is are in for that which with not to it he she we you they i this these but or so their be have "
    "has very all on by was were as at from can your there our its my his her will would when what how if into".split()
)

POSITIVE_WORDS = set(
    "good great excellent wonderful beautiful lovely delicious perfect happy joy enjoy enjoyed enjoyable love loved "
    "amazing fantastic pleasant comfortable comforting bright clean friendly kind helpful fun fresh brilliant "
    "charming inspiring delightful delighted superb warm cozy best better exciting excited peaceful calm relaxing "
    "refreshing grateful proud smile smiling laughter safe smooth elegant generous reliable rewarding memorable "
    "magical fascinating welcoming cheerful satisfying success successful unique vibrant adventure treasure".split()
)
NEGATIVE_WORDS = set(
    "bad awful terrible horrible ugly dirty sad angry anger hate hated boring dull disappointing disappointed "
    "disappointment frustrating frustrated frustration annoying annoyed noisy loud cold dark rude slow painful pain "
    "miserable stressful stress anxious anxiety worried worry afraid fear difficult hard problem problems broken lost "
    "late delay delayed poor worst worse tired exhausted exhausting uncomfortable unpleasant chaos chaotic mess messy "
    "bitter stale burnt useless waste wasted regret nightmare disaster struggle struggling crowded empty lonely "
    "dangerous damage damaged uneasy dread dreadful disgusting".split()
)

FORMAL_WORDS = set(
    "dear sincerely regards kindly please would could may shall request inform regarding concerning appreciate "
    "appreciated grateful assistance require provide however therefore furthermore apologies apologize inconvenience "
    "respectfully cordially ensure convenience gratitude pleased writing attention opportunity additional sir madam "
    "sincere assure inquire hereby enclosed behalf matter promptly advised honored regret unable receive response "
    "discuss consider consideration further upcoming".split()
)
INFORMAL_WORDS = set(
    "hey hi yeah yep nope nah ok okay gonna wanna gotta kinda sorta cool awesome guys dude buddy bro lol haha wow oops "
    "thanks thx bye stuff super totally crazy fun chill bummer btw asap omg u ur pls cuz yay ya cheers hang grab dunno "
    "sorry yummy".split()
)
